//! What can be wrong with an answer, and how one asks for it.
//!
//! A [`Plan`] is a list of `name=value` separated by `;`, such as `status=529; retry-after=3`. A request brings its own in the
//! header `x-mock`, or behind an `@` in the model's name (`gpt-4.1@stall=2`), for clients that can't set headers.
//! A [`Fault`] is a plan that the provider is configured with: `p=0.01` says how often it strikes (always, if it is not there), `model=NAME` whom.
//! A request's own plan takes the place of all configured ones; an empty one (`x-mock: none`) makes the provider behave.
//!
//! | plan | what happens |
//! |---|---|
//! | `delay=200ms` | the first token, or a whole answer, comes that late (as `--first-token-delay-ms`) |
//! | `rate=50` | tokens a second after the first (as `--tokens-per-second`) |
//! | `jitter=20ms`, `seed=7` | each wait is up to so much longer, drawn from the seed (by default from the request's number) |
//! | `status=429` | an error with this status in the provider's form; 400 to 599 |
//! | `retry-after=3`, `=date:3`, `=250ms` | `Retry-After` in seconds, or as an HTTP date so many seconds ahead; `retry-after-ms` |
//! | `fail=2`, `id=NAME` | the first 2 requests with this id (by default: of this key for this model) get the rest of the plan, or `status=503` if it says nothing that fails; those after them are served well |
//! | `reset=WHEN` | the connection ends with a TCP reset |
//! | `close=WHEN` | it ends in good order, too early |
//! | `stall=WHEN` | nothing more comes until the client leaves |
//! | WHEN | `before` the headers, in the `headers`, in the `body` (half of a whole answer, half of a stream's first event), or a number: after so many events. A stream that has fewer ends well; a whole answer has none and ends in the body |
//! | `error=5` | after 5 events, the provider's error event, and the stream ends there |
//! | `malformed=5` | event 5, counted from 0, is JSON cut in half; in a whole answer, `malformed=0` cuts the document |
//! | `usage=missing`, `usage=twice` | no usage though asked for; the event that tells it comes twice |
//! | `done=missing` | a stream ends without `[DONE]` |
//! | `extra` | unknown fields in every JSON object of the first level and in each event |
//! | `eol=crlf`, `eol=cr`, `eol=lf` | line ends of the events |
//! | `comments` | a comment line before each event |
//! | `multiline` | each event's data on several `data:` lines |
//! | `write=3` | the body in pieces of 3 bytes, each a chunk and a write of its own: within lines and within characters |
//! | `gzip=accepted`, `gzip=always` | compressed if the client accepts it, or whatever it says; a stream is flushed at each event |
//! | `tokens=100000`, `bytes=50MB` | the text has this length (limits of the request still cut it) |
//! | `slow-headers=5ms` | the head byte by byte, with so long a wait before each |
//! | `content-type=text/plain` | this content type; quotes around a value that has a `;` |
//! | `length=long`, `length=short` | a whole answer's Content-Length is 10 more, or half |
//! | `chunk=bad` | the second chunk's size is no number; the answer is chunked for that |
//! | `trailers` | chunked, with the trailer `x-mock-trailer: end` |
//!
//! Every answer that a plan was followed for names it in the [ledger](super#the-ledger), with what was written until its end.
//!
//! In HTTP/2, `reset` and `close` both reset the stream, and `slow-headers`, `length` and `chunk` do nothing.

use std::fmt::{self, Display};
use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;

use super::reply::Size;

/// The names that a plan may use.
const NAMES: &str = "delay, rate, jitter, seed, status, retry-after, fail, id, reset, close, stall, error, malformed, usage, done, extra, eol, comments, multiline, write, gzip, tokens, bytes, slow-headers, content-type, length, chunk, trailers";

/// The longest text that can be wanted, in bytes: the provider holds one whole.
const LONGEST_TEXT: usize = 1 << 30;

/// What is to be wrong with an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// As it was written, for the ledger.
    pub(super) text: String,
    pub(super) delay: Option<Duration>,
    pub(super) rate: Option<NonZeroU32>,
    pub(super) jitter: Option<Duration>,
    pub(super) seed: Option<u64>,
    pub(super) status: Option<StatusCode>,
    pub(super) retry_after: Option<RetryAfter>,
    pub(super) fail: Option<u32>,
    pub(super) id: Option<String>,
    pub(super) cut: Option<Cut>,
    pub(super) error: Option<usize>,
    pub(super) malformed: Option<usize>,
    pub(super) usage: Option<UsageFault>,
    pub(super) no_done: bool,
    pub(super) extra: bool,
    pub(super) eol: Eol,
    pub(super) comments: bool,
    pub(super) multiline: bool,
    pub(super) write: Option<NonZeroUsize>,
    pub(super) gzip: Gzip,
    pub(super) size: Option<Size>,
    pub(super) slow_headers: Option<Duration>,
    pub(super) content_type: Option<String>,
    pub(super) length: Option<LengthFault>,
    pub(super) bad_chunk: bool,
    pub(super) trailers: bool,
}

/// When a client is told to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryAfter {
    Seconds(u64),
    Millis(u64),
    /// As an HTTP date, so many seconds ahead.
    Date(u64),
}

/// An answer's early end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) moment: Moment,
    pub(super) how: CutHow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Before,
    Headers,
    Body,
    /// After this many events.
    Events(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutHow {
    Reset,
    Close,
    Stall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsageFault {
    Missing,
    Twice,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Eol {
    #[default]
    Lf,
    CrLf,
    Cr,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Gzip {
    #[default]
    Never,
    Accepted,
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LengthFault {
    Long,
    Short,
}

/// A plan that a provider follows by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// How often, from 0 to 1.
    pub(super) probability: f64,
    /// For which model; none: for all requests.
    pub(super) model: Option<String>,
    pub(super) plan: Plan,
}

/// A plan that can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Occurs when a name is none of a plan's.
    #[error("`{name}` is nothing that can go wrong here; there are {NAMES}")]
    Unknown {
        /// The name as it was written.
        name: String,
    },
    /// Occurs when a value is not what its name takes.
    #[error("`{name}={value}`: {expected}")]
    Value {
        /// The name.
        name: String,
        /// The value as it was written.
        value: String,
        /// What to write instead.
        expected: &'static str,
    },
    /// Occurs when a plan names several ends of one answer.
    #[error("one of reset, close, stall and error, not several")]
    SeveralEnds,
    /// Occurs when a quote is not closed.
    #[error("a quote is not closed")]
    Quote,
}

impl Plan {
    /// Whether there is anything in it that makes a request fail.
    fn fails(&self) -> bool {
        self.status.is_some()
            || self.cut.is_some()
            || self.error.is_some()
            || self.malformed.is_some()
            || self.length.is_some()
            || self.bad_chunk
            || self.no_done
    }

    /// The plan for a request that is to fail: at least an error.
    pub(super) fn failing(mut self) -> Self {
        if !self.fails() {
            self.status = Some(StatusCode::SERVICE_UNAVAILABLE);
        }
        self
    }

    fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), PlanError> {
        let wrong = |expected| PlanError::Value {
            name: name.to_owned(),
            value: value.unwrap_or_default().to_owned(),
            expected,
        };
        let text = value.unwrap_or_default();
        let count = || {
            text.parse()
                .map_err(|_| wrong("write a whole number, such as 3"))
        };
        let time = || duration(text).ok_or_else(|| wrong("write a time, such as 200ms or 3s"));
        let flag = || match value {
            None => Ok(true),
            Some(_) => Err(wrong("it takes no value")),
        };
        match name {
            "delay" => self.delay = Some(time()?),
            "rate" => {
                let rate = text
                    .parse()
                    .map_err(|_| wrong("write tokens a second, at least 1"))?;
                self.rate = Some(rate);
            }
            "jitter" => self.jitter = Some(time()?),
            "seed" => {
                self.seed = Some(text.parse().map_err(|_| wrong("write a whole number"))?);
            }
            "status" => {
                let status = text.parse().ok().and_then(|code: u16| match code {
                    400..=599 => StatusCode::from_u16(code).ok(),
                    _ => None,
                });
                self.status = Some(status.ok_or_else(|| wrong("write a status from 400 to 599"))?);
            }
            "retry-after" => {
                let after = retry_after(text);
                self.retry_after = Some(after.ok_or_else(|| {
                    wrong("write seconds, `date:` and seconds, or milliseconds: 3, date:3, 250ms")
                })?);
            }
            "fail" => {
                self.fail = Some(
                    text.parse()
                        .map_err(|_| wrong("write how many requests fail"))?,
                );
            }
            "id" => match value {
                Some(id) if !id.is_empty() => self.id = Some(id.to_owned()),
                _ => return Err(wrong("write a name")),
            },
            "reset" | "close" | "stall" => {
                let moment = match text {
                    "before" => Moment::Before,
                    "headers" => Moment::Headers,
                    "body" => Moment::Body,
                    events => Moment::Events(events.parse().map_err(|_| {
                        wrong("write `before`, `headers`, `body`, or after how many events")
                    })?),
                };
                let how = match name {
                    "reset" => CutHow::Reset,
                    "close" => CutHow::Close,
                    _ => CutHow::Stall,
                };
                if self.cut.replace(Cut { moment, how }).is_some() {
                    return Err(PlanError::SeveralEnds);
                }
            }
            "error" => self.error = Some(count()?),
            "malformed" => self.malformed = Some(count()?),
            "usage" => {
                self.usage = Some(match text {
                    "missing" => UsageFault::Missing,
                    "twice" => UsageFault::Twice,
                    _ => return Err(wrong("write `missing` or `twice`")),
                });
            }
            "done" => match text {
                "missing" => self.no_done = true,
                _ => return Err(wrong("write `missing`")),
            },
            "extra" => self.extra = flag()?,
            "eol" => {
                self.eol = match text {
                    "lf" => Eol::Lf,
                    "crlf" => Eol::CrLf,
                    "cr" => Eol::Cr,
                    _ => return Err(wrong("write `lf`, `crlf` or `cr`")),
                };
            }
            "comments" => self.comments = flag()?,
            "multiline" => self.multiline = flag()?,
            "write" => {
                let bytes = text.parse().map_err(|_| wrong("write bytes, at least 1"))?;
                self.write = Some(bytes);
            }
            "gzip" => {
                self.gzip = match text {
                    "accepted" => Gzip::Accepted,
                    "always" => Gzip::Always,
                    _ => return Err(wrong("write `accepted` or `always`")),
                };
            }
            "tokens" => {
                let tokens = count()?;
                if tokens > LONGEST_TEXT / super::tokens::BYTES {
                    return Err(wrong("write at most 268435456 tokens"));
                }
                self.size = Some(Size::Tokens(tokens));
            }
            "bytes" => {
                let bytes = bytes(text).filter(|bytes| *bytes <= LONGEST_TEXT);
                self.size = Some(Size::Bytes(bytes.ok_or_else(|| {
                    wrong("write bytes, such as 500, 20kB or 50MB, at most 1GB")
                })?));
            }
            "slow-headers" => self.slow_headers = Some(time()?),
            "content-type" => {
                if text.is_empty() || HeaderValue::from_str(text).is_err() {
                    return Err(wrong("write a header's value"));
                }
                self.content_type = Some(text.to_owned());
            }
            "length" => {
                self.length = Some(match text {
                    "long" => LengthFault::Long,
                    "short" => LengthFault::Short,
                    _ => return Err(wrong("write `long` or `short`")),
                });
            }
            "chunk" => match text {
                "bad" => self.bad_chunk = true,
                _ => return Err(wrong("write `bad`")),
            },
            "trailers" => self.trailers = flag()?,
            _ => {
                return Err(PlanError::Unknown {
                    name: name.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn finish(mut self, text: &str) -> Result<Self, PlanError> {
        if self.error.is_some() && self.cut.is_some() {
            return Err(PlanError::SeveralEnds);
        }
        text.trim().clone_into(&mut self.text);
        Ok(self)
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        if text.trim() == "none" {
            return Ok(plan);
        }
        for (name, value) in terms(text)? {
            plan.set(&name, value.as_deref())?;
        }
        plan.finish(text)
    }
}

impl FromStr for Fault {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut fault = Self {
            probability: 1.0,
            model: None,
            plan: Plan::default(),
        };
        for (name, value) in terms(text)? {
            match (name.as_str(), value) {
                ("p", value) => {
                    let value = value.unwrap_or_default();
                    let probability = value.parse().ok().filter(|p| (0.0..=1.0).contains(p));
                    fault.probability = probability.ok_or(PlanError::Value {
                        name,
                        value,
                        expected: "write a probability from 0 to 1",
                    })?;
                }
                ("model", Some(model)) => fault.model = Some(model),
                (_, value) => fault.plan.set(&name, value.as_deref())?,
            }
        }
        fault.plan = fault.plan.finish(text)?;
        Ok(fault)
    }
}

/// The names and values of a plan.
fn terms(text: &str) -> Result<Vec<(String, Option<String>)>, PlanError> {
    let mut terms = Vec::new();
    let mut quoted = false;
    let ends = |c: char| {
        if c == '"' {
            quoted = !quoted;
        }
        c == ';' && !quoted
    };
    for term in text.split(ends) {
        let term = term.trim();
        if term.is_empty() {
            continue;
        }
        let (name, value) = match term.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (term, None),
        };
        let value = match value.map(|value| value.strip_prefix('"').ok_or(value)) {
            None => None,
            Some(Err(bare)) => Some(bare.to_owned()),
            Some(Ok(rest)) => Some(rest.strip_suffix('"').ok_or(PlanError::Quote)?.to_owned()),
        };
        terms.push((name.to_ascii_lowercase(), value));
    }
    Ok(terms)
}

fn duration(text: &str) -> Option<Duration> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(millis), _) => number(millis).map(Duration::from_millis),
        (None, Some(seconds)) => number(seconds).map(Duration::from_secs),
        (None, None) => None,
    }
}

fn retry_after(text: &str) -> Option<RetryAfter> {
    if let Some(seconds) = text.strip_prefix("date:") {
        // As far as an HTTP date can say it.
        let seconds = seconds.parse().ok().filter(|seconds| *seconds < 1 << 32);
        return seconds.map(RetryAfter::Date);
    }
    match text.strip_suffix("ms") {
        Some(millis) => millis.parse().ok().map(RetryAfter::Millis),
        None => text.parse().ok().map(RetryAfter::Seconds),
    }
}

fn bytes(text: &str) -> Option<usize> {
    let units = [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
    for (unit, factor) in units {
        if let Some(number) = text.strip_suffix(unit) {
            return number.trim().parse::<usize>().ok()?.checked_mul(factor);
        }
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn plans_are_read_as_they_are_written() {
        let overloaded = plan("status=529; retry-after=3");
        assert_eq!(overloaded.status.map(|status| status.as_u16()), Some(529));
        assert_eq!(overloaded.retry_after, Some(RetryAfter::Seconds(3)));
        assert_eq!(
            plan("reset=headers").cut,
            Some(Cut {
                moment: Moment::Headers,
                how: CutHow::Reset
            })
        );
        assert_eq!(plan("bytes=50MB").size, Some(Size::Bytes(50_000_000)));
        assert_eq!(plan("none"), Plan::default());
        let quoted = plan("content-type=\"text/html; charset=x\";comments");
        assert_eq!(quoted.content_type.unwrap(), "text/html; charset=x");
        assert!(quoted.comments);
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_what_to_write() {
        for (text, said) in [
            ("rest=body", "there are delay, rate"),
            ("status=200", "400 to 599"),
            ("reset=later", "after how many events"),
            ("stall=1; close=2", "not several"),
            ("stall=1; error=2", "not several"),
            ("comments=yes", "takes no value"),
            ("content-type=\"x", "quote"),
            ("delay=3", "200ms"),
            ("bytes=2GB", "at most 1GB"),
            ("write=0", "at least 1"),
        ] {
            let error = text.parse::<Plan>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
        let error = "p=2; status=500".parse::<Fault>().unwrap_err();
        assert!(error.to_string().contains("from 0 to 1"), "{error}");
    }

    #[test]
    fn a_fault_says_how_often_and_whom() {
        let fault: Fault = "p=0.25; model=gpt-4.1; reset=body".parse().unwrap();
        assert_eq!(fault.probability, 0.25);
        assert_eq!(fault.model.as_deref(), Some("gpt-4.1"));
        assert!(fault.plan.cut.is_some());
    }
}
