//! Consumers from a URL: how keys are rotated without touching the gateway.
//!
//! Every worker polls for itself, on the tick, with `If-None-Match`. A document is read in slices of [`SLICE`] bytes, one a
//! tick, so that a hundred thousand credentials never keep a worker from its requests; the last good directory serves until the new
//! one is whole. A document with any mistake is refused whole.

use crate::config::Source;
use crate::consumers::Consumers;
use crate::directory::Directory;
use std::time::Duration;
use tollgate_kit::config::Reader;
use tollgate_kit::json::{Elements, Malformed};
use tollgate_kit::step::{Call, CallOutcome};

/// How often the filter's tick comes.
pub(crate) const TICK: Duration = Duration::from_millis(25);

/// So much of a document is read at once.
const SLICE: usize = 64 * 1024;

/// After a failure, before anything was ever loaded, the next poll comes at least this soon.
const IMPATIENCE: Duration = Duration::from_secs(2);

/// What a poll has come to.
#[derive(Debug)]
pub(crate) enum News {
    /// New consumers.
    Loaded(Directory),
    /// The same as before.
    Unchanged,
    /// A document that can't be used, with what is wrong.
    Refused(String),
    /// No document.
    Failed(String),
}

/// The state of polling.
#[derive(Debug)]
pub(crate) struct Poll {
    source: Source,
    /// When to ask next, since 1970.
    due: Duration,
    asking: bool,
    loading: Option<Load>,
    /// Of the document in use.
    etag: Option<Vec<u8>>,
    loaded: bool,
}

/// A document that is being read.
#[derive(Debug)]
struct Load {
    document: Vec<u8>,
    etag: Option<Vec<u8>>,
    elements: Option<Elements>,
    count: usize,
    consumers: Consumers,
}

impl Poll {
    pub(crate) fn new(source: Source) -> Poll {
        Poll {
            source,
            due: Duration::ZERO,
            asking: false,
            loading: None,
            etag: None,
            loaded: false,
        }
    }

    /// How long a client should wait before it tries again, in whole seconds.
    pub(crate) fn retry_after(&self, now: Duration) -> u64 {
        self.due.saturating_sub(now).as_secs().saturating_add(1)
    }

    /// Reads on, or asks again when it is time to.
    pub(crate) fn tick(&mut self, now: Duration) -> (Option<Call>, Option<News>) {
        if let Some(load) = &mut self.loading {
            let news = match load.step() {
                Ok(false) => return (None, None),
                Ok(true) => {
                    let load = self.loading.take();
                    self.loaded = true;
                    load.map(|load| {
                        self.etag = load.etag;
                        News::Loaded(load.consumers.directory)
                    })
                }
                Err(problem) => {
                    self.loading = None;
                    self.later(now);
                    Some(News::Refused(problem))
                }
            };
            return (None, news);
        }
        if self.asking || now < self.due {
            return (None, None);
        }
        self.asking = true;
        self.due = now.saturating_add(self.source.refresh);
        let mut headers = self.source.headers.clone();
        headers.push(("accept".to_owned(), b"application/json".to_vec()));
        if let Some(etag) = &self.etag {
            headers.push(("if-none-match".to_owned(), etag.clone()));
        }
        let call = Call {
            upstream: self.source.upstream.clone(),
            method: "GET",
            path: self.source.path.clone(),
            authority: self.source.authority.clone(),
            headers,
            body: Vec::new(),
            timeout: self.source.timeout,
        };
        (Some(call), None)
    }

    /// Takes the answer to the call of [`Poll::tick`].
    pub(crate) fn answer(&mut self, outcome: CallOutcome, now: Duration) -> Option<News> {
        self.asking = false;
        let failure = match outcome {
            CallOutcome::Response(response) if response.status == 200 => {
                let etag = response.headers.first("etag").map(<[u8]>::to_vec);
                self.loading = Some(Load::new(response.body, etag));
                return None;
            }
            CallOutcome::Response(response) if response.status == 304 && self.etag.is_some() => {
                return Some(News::Unchanged);
            }
            CallOutcome::Response(response) => {
                format!("{} answered {}", self.source.upstream, response.status)
            }
            CallOutcome::Failed => format!("{} did not answer", self.source.upstream),
        };
        self.later(now);
        Some(News::Failed(failure))
    }

    /// Nobody gets in before the first load, so try again sooner then.
    fn later(&mut self, now: Duration) {
        if !self.loaded {
            self.due = now.saturating_add(self.source.refresh.min(IMPATIENCE));
        }
    }
}

impl Load {
    fn new(document: Vec<u8>, etag: Option<Vec<u8>>) -> Load {
        let mut consumers = Consumers::default();
        // Ids, names and a digest rarely take less than 100 bytes, and half of that is text to keep.
        let size = document.len();
        consumers.directory.reserve(size / 100, size / 2);
        Load {
            document,
            etag,
            elements: None,
            count: 0,
            consumers,
        }
    }

    /// Reads one slice; true when it was the last one.
    fn step(&mut self) -> Result<bool, String> {
        let malformed = |problem: Malformed| problem.to_string();
        let elements = match &mut self.elements {
            Some(elements) => elements,
            None => self.elements.insert(
                Elements::of_member(&self.document, "consumers", "the one member \"consumers\"")
                    .map_err(malformed)?,
            ),
        };
        let until = elements.position().saturating_add(SLICE);
        // A document from outside does not read this VM's environment.
        let environment = |_: &str| None;
        let mut reader = Reader::new(&environment);
        while elements.position() < until {
            let Some(element) = elements.next(&self.document).map_err(malformed)? else {
                return Ok(true);
            };
            reader.member("consumers", |reader| {
                reader.element(self.count, |reader| self.consumers.add(element, reader))
            });
            self.count = self.count.saturating_add(1);
            if !reader.is_clean() {
                let (problems, _) = reader.finish();
                return Err(problems
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; "));
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_kit::headers::HeaderMap;
    use tollgate_kit::step::CallResponse;

    fn poll() -> Poll {
        let (upstream, path) = ("directory".to_owned(), "/consumers".to_owned());
        let (refresh, timeout) = (Duration::from_secs(30), Duration::from_secs(5));
        Poll::new(Source {
            authority: upstream.clone(),
            upstream,
            path,
            headers: vec![],
            refresh,
            timeout,
        })
    }

    fn answer(status: u16, etag: &str, body: &str) -> CallOutcome {
        let lines: Vec<(&[u8], &[u8])> = if etag.is_empty() {
            vec![]
        } else {
            vec![(b"ETag", etag.as_bytes())]
        };
        let headers = HeaderMap::unmarshal(HeaderMap::marshal(lines));
        CallOutcome::Response(CallResponse {
            status,
            headers,
            body: body.as_bytes().to_vec(),
        })
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn document(consumers: usize) -> String {
        let consumer = |n: usize| {
            format!(
                r#"{{"id":"consumer-{n}","credentials":[{{"id":"credential-{n}","key":"key-{n}"}}]}}"#
            )
        };
        format!(
            r#"{{ "consumers" : [{}] }}"#,
            (0..consumers).map(consumer).collect::<Vec<_>>().join(" , ")
        )
    }

    /// Answers the next call and ticks until there is news.
    fn load(poll: &mut Poll, now: Duration, outcome: CallOutcome) -> (News, usize) {
        assert!(poll.tick(now).0.is_some(), "it asks");
        if let Some(news) = poll.answer(outcome, now) {
            return (news, 0);
        }
        for ticks in 1.. {
            if let (call, Some(news)) = poll.tick(now) {
                assert!(call.is_none());
                return (news, ticks);
            }
        }
        unreachable!()
    }

    #[test]
    fn a_large_document_is_read_in_slices() {
        let text = document(10_000);
        let (news, ticks) = load(&mut poll(), at(0), answer(200, "", &text));
        let News::Loaded(directory) = news else {
            panic!("{news:?}")
        };
        assert_eq!(directory.len(), 10_000);
        assert_eq!(ticks, text.len() / SLICE + 1);
    }

    #[test]
    fn an_unchanged_document_is_not_read_again() {
        let mut poll = poll();
        assert!(matches!(
            load(&mut poll, at(0), answer(200, "\"v1\"", &document(1))).0,
            News::Loaded(_)
        ));
        assert!(poll.tick(at(29)).0.is_none(), "not before the refresh");
        let call = poll.tick(at(30)).0.unwrap();
        assert!(
            call.headers
                .contains(&("if-none-match".to_owned(), b"\"v1\"".to_vec()))
        );
        assert!(poll.tick(at(90)).0.is_none(), "one call at a time");
        assert!(matches!(
            poll.answer(answer(304, "", ""), at(30)),
            Some(News::Unchanged)
        ));
    }

    #[test]
    fn a_bad_document_is_refused_whole_and_its_etag_forgotten() {
        let mut poll = poll();
        assert!(matches!(
            load(&mut poll, at(0), answer(200, "\"v1\"", &document(1))).0,
            News::Loaded(_)
        ));
        for (second, (bad, why)) in [
            (
                r#"{"consumers":[{"id":"a"},{"id":"a"}]}"#,
                "consumers[1].id: duplicate consumer",
            ),
            (
                r#"{"consumers":[{"id":"${env:HOME}"}]}"#,
                "consumers[0].id: environment variable HOME is not set",
            ),
            (r#"{"consumers":[{"id":"a"}"#, "not JSON"),
            (
                r#"{"consumer":[]}"#,
                "not JSON: the one member \"consumers\" expected at byte 1",
            ),
            (r#"{"consumers":[]} x"#, "not JSON: the end"),
            ("", "not JSON"),
        ]
        .into_iter()
        .enumerate()
        {
            let (news, _) = load(
                &mut poll,
                at(30 * (second as u64 + 1)),
                answer(200, "\"bad\"", bad),
            );
            let News::Refused(problem) = news else {
                panic!("{news:?}")
            };
            assert!(problem.starts_with(why), "{problem}");
            assert_eq!(poll.etag.as_deref(), Some(&b"\"v1\""[..]));
        }
    }

    #[test]
    fn before_the_first_load_a_failure_is_retried_soon() {
        let mut poll = poll();
        assert!(matches!(
            load(&mut poll, at(10), CallOutcome::Failed).0,
            News::Failed(_)
        ));
        assert_eq!(poll.retry_after(at(10)), 3);
        assert!(poll.tick(at(11)).0.is_none());
        assert!(matches!(
            load(&mut poll, at(12), answer(503, "", "")).0,
            News::Failed(_)
        ));
        assert!(
            matches!(
                load(&mut poll, at(14), answer(304, "", "")).0,
                News::Failed(_)
            ),
            "nothing to be unchanged yet"
        );
    }
}
