//! A filter that does what its configuration says, so that each thing the kit can do is tested on every host.

use tollgate_kit::config::{Configuration, Reader, Seconds};
use tollgate_kit::host::{Failure, Host, HostKind};
use tollgate_kit::metric::Metric;
use tollgate_kit::reply::Reply;
use tollgate_kit::step::{
    Body, Call, CallOutcome, HeaderEdit, RequestEdits, RequestStep, ResponseEdits, ResponseStep,
    StreamStep,
};
use tollgate_kit::{Exchange, Fallback, Filter, keyword, record};

keyword! {
    /// What is done to a response.
    pub enum Response {
        /// Nothing.
        Pass = "pass",
        /// `x-probe: response` is set.
        Head = "head",
        /// Each chunk is put in brackets.
        Bracket = "bracket",
        /// Every chunk is swallowed, and the last one says how many bytes they had.
        Count = "count",
        /// The body is held, and turned around.
        Reverse = "reverse",
    }
}

record! {
    /// What to do.
    pub struct Orders {
        /// Where it runs.
        pub host: Option<HostKind>,
        /// Hold for the body, up to so many bytes, and send it on in brackets.
        pub hold: Option<u64>,
        /// Ask this upstream for `/ask`, and send what it says upstream as `x-answer`.
        pub ask: Option<String>,
        /// How long to wait for it.
        pub timeout: Seconds = Seconds(std::time::Duration::from_secs(1)),
        /// Ask only when the body is there.
        pub ask_after_body: bool = false,
        /// What to do to the response.
        pub response: Response = Response::Pass,
        /// Let a request pass when the host fails, instead of answering 500.
        pub open: bool = false,
        /// The query to send upstream instead.
        pub query: Option<String>,
        /// Send upstream as `x-identity` who an earlier filter says the client is.
        pub identity: bool = false,
    }
}

impl Configuration for Orders {
    type Raw = Orders;

    fn validate(raw: Orders, _reader: &mut Reader<'_>) -> Option<Orders> {
        Some(raw)
    }
}

/// The filter.
pub struct Probe(Orders);

/// One request.
#[derive(Default)]
pub struct Probed {
    edits: RequestEdits,
    bytes: usize,
}

impl Filter for Probe {
    const NAME: &'static str = "probe";
    const METRICS: &'static [Metric] = &[Metric {
        name: "tollgate_probe_logged",
        labels: &[],
        help: "Requests that are over.",
    }];

    type Config = Orders;
    type Exchange = Probed;

    fn new(config: Orders) -> Probe {
        Probe(config)
    }

    fn host_kind(&self) -> Option<HostKind> {
        self.0.host
    }

    fn exchange(&self) -> Probed {
        Probed::default()
    }
}

fn header(name: &'static str, value: impl Into<Vec<u8>>) -> HeaderEdit {
    HeaderEdit::Set(name.into(), value.into())
}

impl Probed {
    fn ask_or_go_on(&mut self, orders: &Orders, asks: bool) -> RequestStep {
        match &orders.ask {
            Some(upstream) if asks => RequestStep::Call(Call {
                upstream: upstream.clone(),
                method: "GET",
                path: "/ask".to_owned(),
                authority: "asked.test".to_owned(),
                headers: Vec::new(),
                body: Vec::new(),
                timeout: orders.timeout.0,
            }),
            _ => RequestStep::Continue(std::mem::take(&mut self.edits)),
        }
    }
}

impl Exchange<Probe> for Probed {
    fn request_headers(&mut self, filter: &mut Probe, host: &dyn Host) -> RequestStep {
        if filter.0.identity {
            let identity = host
                .identity()
                .map_or_else(|| b"nobody".to_vec(), |identity| identity.to_json());
            self.edits.headers.push(header("x-identity", identity));
        }
        self.edits.query = filter.0.query.clone().map(String::into_bytes);
        match filter.0.hold {
            Some(most) if filter.0.ask.is_none() || filter.0.ask_after_body => {
                RequestStep::HoldForBody {
                    most: usize::try_from(most).unwrap_or(usize::MAX),
                }
            }
            _ => self.ask_or_go_on(&filter.0, true),
        }
    }

    fn request_body(
        &mut self,
        filter: &mut Probe,
        body: Body<'_>,
        _host: &dyn Host,
    ) -> RequestStep {
        let seen = match body {
            Body::None => "none".to_owned(),
            Body::Whole(bytes) => {
                self.edits.body = Some([b"[", bytes, b"]"].concat());
                format!("{} bytes", bytes.len())
            }
            Body::TooLarge => "too large".to_owned(),
            Body::Unreadable => "unreadable".to_owned(),
        };
        self.edits.headers.push(header("x-body", seen));
        self.ask_or_go_on(&filter.0, filter.0.ask_after_body)
    }

    fn call_done(
        &mut self,
        filter: &mut Probe,
        outcome: CallOutcome,
        _host: &dyn Host,
    ) -> RequestStep {
        let answer = match outcome {
            CallOutcome::Response(response) => format!(
                "{} {}",
                response.status,
                String::from_utf8_lossy(&response.body)
            ),
            CallOutcome::Failed => "failed".to_owned(),
        };
        self.edits.headers.push(header("x-answer", answer));
        match filter.0.hold {
            Some(most) if !filter.0.ask_after_body => RequestStep::HoldForBody {
                most: usize::try_from(most).unwrap_or(usize::MAX),
            },
            _ => RequestStep::Continue(std::mem::take(&mut self.edits)),
        }
    }

    fn host_failed(&mut self, filter: &mut Probe, failure: Failure, _host: &dyn Host) -> Fallback {
        if filter.0.open {
            return Fallback::Continue;
        }
        Fallback::Reply(Reply {
            status: 500,
            headers: Vec::new(),
            body: format!("{failure:?}").into_bytes(),
            grpc_status: None,
        })
    }

    fn response_headers(&mut self, filter: &mut Probe, _host: &dyn Host) -> ResponseStep {
        let edits = ResponseEdits {
            headers: vec![header("x-probe", "response")],
        };
        match filter.0.response {
            Response::Pass => ResponseStep::unchanged(),
            Response::Head => ResponseStep::Continue(edits),
            Response::Bracket | Response::Count => ResponseStep::Stream(edits),
            Response::Reverse => ResponseStep::Hold {
                edits,
                most: 100_000,
            },
        }
    }

    fn response_chunk(
        &mut self,
        filter: &mut Probe,
        chunk: &[u8],
        end: bool,
        _host: &dyn Host,
    ) -> StreamStep {
        self.bytes = self.bytes.saturating_add(chunk.len());
        match filter.0.response {
            Response::Count if end => StreamStep::Replace(self.bytes.to_string().into_bytes()),
            Response::Count => StreamStep::Swallow,
            _ if chunk.is_empty() => StreamStep::Pass,
            _ => StreamStep::Replace([b"[", chunk, b"]"].concat()),
        }
    }

    fn response_body(
        &mut self,
        _filter: &mut Probe,
        body: &[u8],
        _host: &dyn Host,
    ) -> Option<Vec<u8>> {
        Some(body.iter().rev().copied().collect())
    }

    fn log(&mut self, _filter: &mut Probe, host: &dyn Host) {
        host.count("tollgate_probe_logged", 1);
    }
}

tollgate_kit::export!(crate::Probe);
