//! What the filter answers itself: a client's question for its budget, an operator's order.

use super::{Incoming, Limiting, TokenRateLimit, remote};
use crate::config::{Admin, Errand};
use crate::counter::{self, Correction, Total};
use crate::enquiry::{Asked, Enquiry, Found, Order, Stands, directive, statement};
use crate::ledger::{Account, Charge};
use crate::redis::{Spelt, Unanswered};
use crate::rule::Matching;
use crate::subject::{self, Client, Part};
use crate::window::Window;
use std::borrow::Cow;
use tollgate_kit::args;
use tollgate_kit::digest::Digest;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::host::{Failure, Host, Level};
use tollgate_kit::reply::Reply;
use tollgate_kit::step::{Body, CallOutcome, RequestStep};
use tollgate_kit::store::Key;
use tollgate_llm::{Api, Endpoint};

/// What a client may say of the requests it asks for, in the query.
#[derive(Debug, Default)]
struct Imagined {
    path: Option<Vec<u8>>,
    model: Option<String>,
    provider: Option<String>,
}

impl Imagined {
    fn of(query: &[u8]) -> Imagined {
        let mut imagined = Imagined::default();
        for argument in args::parse(query).take(args::MOST_ARGUMENTS) {
            let value = argument.value.unwrap_or_default().into_owned();
            let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
            match argument.name.as_ref() {
                b"path" => imagined.path = Some(value),
                b"model" => imagined.model = Some(text(value)),
                b"provider" => imagined.provider = Some(text(value)),
                _ => {}
            }
        }
        imagined
    }

    /// The client, as it would come with such a request.
    fn client<'r>(
        &'r self,
        filter: &'r TokenRateLimit,
        incoming: &'r Incoming,
        host: &'r dyn Host,
    ) -> Client<'r> {
        let mut client = incoming.client(filter, None, host);
        client.path = self.path.as_deref().unwrap_or(client.path);
        client.model = self.model.as_deref();
        let api = match Endpoint::of(client.path) {
            Endpoint::Metered { api, .. } => api,
            Endpoint::Unmetered(_) | Endpoint::Unknown => Api::Chat,
        };
        let told = self.provider.as_deref();
        client.provider = told.or(client
            .model
            .map(|model| subject::provider(Some(model), api)));
        client
    }

    /// Whether a rule may be for the client's requests, by all that is known of them.
    fn concerns(&self, matching: &Matching, client: &Client<'_>) -> bool {
        matching.matches_identity(client)
            && (self.path.is_none() || matching.matches_path(client))
            && (self.model.is_none() || matching.matches_model(client))
    }

    /// What has to be said before it is known which of a rule's counters is meant.
    fn missing(&self, by: &[Part]) -> Vec<&'static str> {
        let missing = |part: &Part| match part {
            Part::Path => self.path.is_none().then_some("path"),
            Part::Model => self.model.is_none().then_some("model"),
            Part::Provider if self.model.is_none() => self.provider.is_none().then_some("provider"),
            _ => None,
        };
        by.iter().filter_map(missing).collect()
    }
}

/// A client of whom it is not known who it is asks for what is counted by that.
struct Unidentified;

/// What is asked, and who waits for the answer.
#[derive(Debug)]
pub(super) struct Question {
    headers: HeaderMap,
    enquiry: Enquiry,
    purpose: Purpose,
    id: Key,
    spelt: Spelt,
}

#[derive(Debug)]
enum Purpose {
    /// A client's budget, with the lines of the rules of which it has to say more.
    Budget(Vec<String>),
    /// An operator's order.
    Order,
}

impl Limiting {
    /// Answers what is not for the upstream; `None` for all that is.
    pub(super) fn at_desk(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Incoming,
        host: &dyn Host,
    ) -> Option<RequestStep> {
        let headers = &incoming.headers;
        let method = headers.first(":method").unwrap_or_default();
        let reply = match filter.config.desk.errand(&incoming.path)? {
            Errand::Budget if method == b"GET" => match filter.budget(incoming, host) {
                Ok(question) => return Some(self.put(filter, question, host)),
                Err(reply) => *reply,
            },
            Errand::Budget => filter.wrong_method("GET", headers, host),
            Errand::Admin(admin) if !admin.admits(headers) => {
                host.count(REFUSED, 1);
                filter.unauthorized("Unauthorized", headers, host)
            }
            Errand::Admin(_) if method == b"POST" => {
                self.order = Some(headers.clone());
                let most = directive::MOST_BYTES;
                return Some(RequestStep::HoldForBody { most });
            }
            Errand::Admin(_) => filter.wrong_method("POST", headers, host),
        };
        Some(RequestStep::Reply(reply))
    }

    /// The body of an operator's order is there.
    pub(super) fn carry_out(
        &mut self,
        filter: &mut TokenRateLimit,
        headers: HeaderMap,
        body: Body<'_>,
        host: &dyn Host,
    ) -> RequestStep {
        match filter.order(headers, body, host) {
            Ok(question) => self.put(filter, question, host),
            Err(reply) => RequestStep::Reply(*reply),
        }
    }

    /// Puts a question to whoever keeps the counters.
    fn put(
        &mut self,
        filter: &mut TokenRateLimit,
        question: Question,
        host: &dyn Host,
    ) -> RequestStep {
        let charges = question.enquiry.charges();
        match &filter.remote {
            Some(remote) if !charges.is_empty() => {
                if !remote.is_reachable() {
                    let reply = filter.unreachable(&question.headers, host);
                    return RequestStep::Reply(reply);
                }
                let call = remote.redis.consult(
                    question.spelt,
                    &question.id,
                    &charges,
                    question.enquiry.order.correction(),
                    host.now().as_secs(),
                );
                self.question = Some(Box::new(question));
                RequestStep::Call(call)
            }
            _ => {
                let found = filter.enquire(&question.enquiry, &mut |_| None, host);
                RequestStep::Reply(filter.tell(&question, found, host))
            }
        }
    }

    /// Redis has answered a question, or has not.
    pub(super) fn hear_of(
        &mut self,
        filter: &mut TokenRateLimit,
        mut question: Question,
        outcome: &CallOutcome,
        host: &dyn Host,
    ) -> RequestStep {
        let charges = question.enquiry.charges();
        let windows = charges.iter().map(|charge| charge.limits.len());
        let Some(remote) = &filter.remote else {
            return RequestStep::Reply(filter.unexpected(&question.headers, host));
        };
        match remote.redis.totals(outcome, &question.id, windows) {
            Ok(totals) => {
                filter.answered(None, host);
                filter.adopt(charges.into_iter().zip(&totals), host);
                let mut totals = totals.into_iter();
                let found = filter.enquire(&question.enquiry, &mut |_| totals.next(), host);
                RequestStep::Reply(filter.tell(&question, found, host))
            }
            Err(Unanswered::NoScript) if question.spelt == Spelt::Briefly => {
                question.spelt = Spelt::Out;
                self.put(filter, question, host)
            }
            Err(why) => {
                filter.answered(Some(why), host);
                RequestStep::Reply(filter.unreachable(&question.headers, host))
            }
        }
    }
}

impl Enquiry {
    /// What of it concerns windows.
    fn charges(&self) -> Vec<&Charge> {
        let asked = self.asked.iter().filter_map(|asked| match asked {
            Asked::Windows(charge) => Some(charge),
            Asked::Leases(_) => None,
        });
        asked.collect()
    }
}

impl Order {
    fn correction(self) -> Option<(Correction, Option<Window>)> {
        match self {
            Order::Read => None,
            Order::Correct(correction, window) => Some((correction, window)),
        }
    }
}

/// The counter of those that an operator's path has turned away.
const REFUSED: &str = "tollgate_token_rate_limit_enquiries;result=refused";

impl Admin {
    /// Whether a request shows the key, once.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let mut shown = headers.all(&self.header);
        match (shown.next(), shown.next()) {
            (Some(key), None) => Digest::of(key).same(&self.key),
            _ => false,
        }
    }
}

impl TokenRateLimit {
    /// What a client asks for its own counters; else the answer to it.
    fn budget(&self, incoming: &Incoming, host: &dyn Host) -> Result<Question, Box<Reply>> {
        let headers = &incoming.headers;
        let query = host.request_query(headers).ok().flatten();
        let imagined = Imagined::of(&query.unwrap_or_default());
        let Ok((enquiry, lines)) = self.own_counters(&imagined, incoming, host) else {
            let message = "No consumer is known of this request";
            return Err(Box::new(self.unauthorized(message, headers, host)));
        };
        Ok(Question::new(
            headers.clone(),
            enquiry,
            Purpose::Budget(lines),
            host,
        ))
    }

    /// The counters that a client's requests are charged to, and the lines of the rules of which it has to say more.
    fn own_counters(
        &self,
        imagined: &Imagined,
        incoming: &Incoming,
        host: &dyn Host,
    ) -> Result<(Enquiry, Vec<String>), Unidentified> {
        let client = imagined.client(self, incoming, host);
        let nobody = client.identity.is_none();
        let (mut asked, mut lines) = (Vec::new(), Vec::new());
        let mut look = |matching: &Matching, by: &[Part], name: &str, count: &str| {
            if !imagined.concerns(matching, &client) {
                return Ok(false);
            }
            if nobody && by.iter().any(Part::is_identity) {
                return Err(Unidentified);
            }
            let missing = imagined.missing(by);
            if !missing.is_empty() {
                lines.push(statement::of_nothing(name, count, &missing));
            }
            Ok(missing.is_empty())
        };
        for (place, rule) in self.config.rules().enumerate() {
            if !look(&rule.matching, &rule.by, &rule.name, rule.unit.word())? {
                continue;
            }
            let charge = match rule.by.as_slice() {
                // The only path there is to ask for.
                [Part::ThisPath(path)] if imagined.path.is_none() => {
                    let mut there = imagined.client(self, incoming, host);
                    there.path = path.as_bytes();
                    self.charge(place, rule, &there, |_| 0)
                }
                _ => self.charge(place, rule, &client, |_| 0),
            };
            asked.push(Asked::Windows(charge));
        }
        for (place, rule) in self.config.concurrency.iter().enumerate() {
            if look(&rule.matching, &rule.by, &rule.name, statement::CONCURRENT)? {
                asked.push(Asked::Leases(self.claim(place, rule, &client)));
            }
        }
        let order = Order::Read;
        Ok((Enquiry { order, asked }, lines))
    }

    /// What an operator wants, who has shown the key; else the answer to what can't be read.
    fn order(
        &self,
        headers: HeaderMap,
        body: Body<'_>,
        host: &dyn Host,
    ) -> Result<Question, Box<Reply>> {
        let read = match body {
            Body::TooLarge => Err(vec![format!(
                "an order has at most {} bytes",
                directive::MOST_BYTES
            )]),
            Body::Unreadable => Err(vec!["the host does not show the body".to_owned()]),
            Body::None => directive::read(b"", &self.config),
            Body::Whole(body) => directive::read(body, &self.config),
        };
        match read {
            Ok(enquiry) => Ok(Question::new(headers, enquiry, Purpose::Order, host)),
            Err(problems) => Err(Box::new(json_reply(400, statement::mistakes(&problems)))),
        }
    }

    /// The answer to a question.
    fn tell(
        &self,
        question: &Question,
        found: Result<Vec<Found>, Failure>,
        host: &dyn Host,
    ) -> Reply {
        let headers = &question.headers;
        let Ok(found) = found else {
            return self.unreachable(headers, host);
        };
        let now = host.now().as_secs();
        let mut lines: Vec<_> = found
            .iter()
            .filter_map(|found| self.statement(found, now))
            .collect();
        if let Purpose::Budget(needs_more) = &question.purpose {
            host.count("tollgate_token_rate_limit_enquiries;result=budget", 1);
            lines.extend_from_slice(needs_more);
            return json_reply(200, statement::budget(&lines));
        }
        let (Some(found), Some(line)) = (found.first(), lines.pop()) else {
            return self.unexpected(headers, host);
        };
        if question.enquiry.order == Order::Read {
            host.count("tollgate_token_rate_limit_enquiries;result=read", 1);
        } else if found.shared {
            let problem = "the counter is shared with others, for want of room: raise max_counters";
            return json_reply(409, statement::mistakes(&[problem.to_owned()]));
        } else {
            host.count("tollgate_token_rate_limit_enquiries;result=corrected", 1);
            let message = "tollgate token-rate-limit: an operator has corrected a counter: ";
            host.log(Level::Info, &format!("{message}{line}"));
        }
        json_reply(200, line.into_bytes())
    }

    /// Carries out an enquiry. `told` gives what Redis has told of a counter, where it keeps it.
    fn enquire(
        &mut self,
        enquiry: &Enquiry,
        told: &mut dyn FnMut(&Charge) -> Option<Vec<Total>>,
        host: &dyn Host,
    ) -> Result<Vec<Found>, Failure> {
        let asked = enquiry.asked.iter();
        let found: Result<Vec<_>, _> = asked
            .map(|asked| match asked {
                Asked::Windows(charge) => {
                    let (standings, shared) = match told(charge) {
                        Some(totals) => {
                            let now = host.now().as_secs();
                            let (limits, amount) = (&charge.limits, charge.amount);
                            (counter::standings_of(&totals, limits, amount, now), false)
                        }
                        None => self
                            .ledger(host)
                            .consult(charge, enquiry.order.correction())?,
                    };
                    let stands = Stands::Windows(Account {
                        rule: charge.rule,
                        limits: charge.limits.clone(),
                        standings,
                    });
                    Ok(Found { stands, shared })
                }
                Asked::Leases(claim) => {
                    let reset = matches!(enquiry.order, Order::Correct(Correction::Reset, _));
                    let (held, shared) = self.register(host).consult(claim, reset)?;
                    let (rule, most) = (claim.rule, claim.most);
                    let stands = Stands::Leases { rule, most, held };
                    Ok(Found { stands, shared })
                }
            })
            .collect();
        self.reached(found.is_ok(), host);
        found
    }

    fn statement(&self, found: &Found, now: u64) -> Option<String> {
        let shared = found.shared;
        Some(match &found.stands {
            Stands::Windows(account) => {
                statement::of_windows(self.rule(account.rule)?, account, shared, now)
            }
            Stands::Leases { rule, most, held } => {
                let rule = self.config.concurrency.get(*rule)?;
                statement::of_leases(rule, *most, *held, shared)
            }
        })
    }
}

impl Question {
    fn new(headers: HeaderMap, enquiry: Enquiry, purpose: Purpose, host: &dyn Host) -> Question {
        let request = host.request_id(&headers).unwrap_or_default();
        Question {
            id: remote::operation(&request, host),
            headers,
            enquiry,
            purpose,
            spelt: Spelt::Briefly,
        }
    }
}

/// An answer in JSON that nobody is to keep.
fn json_reply(status: u16, body: Vec<u8>) -> Reply {
    Reply {
        status,
        headers: vec![
            (Cow::Borrowed("content-type"), b"application/json".to_vec()),
            (Cow::Borrowed("cache-control"), b"no-store".to_vec()),
        ],
        body,
        grpc_status: None,
    }
}
