//! An experiment: what is sent, what is looked at, what is to be seen on each host.

use std::time::Duration;

use tollgate_harness::http::Headers;
use tollgate_harness::profile::Profile;

use crate::message::{Ask, Told};

/// One row's experiment.
pub(crate) struct Experiment {
    /// The row.
    pub(crate) id: &'static str,
    /// The names of the entries of the chain; each is an entry of the guest with the same experiment.
    pub(crate) entries: &'static [&'static str],
    pub(crate) steps: Vec<Step>,
    pub(crate) told: Told,
    /// Another guest than `quirks`, in the text form.
    pub(crate) guest: Option<&'static str>,
    /// How long a client waits that may wait for ever.
    pub(crate) patience: Duration,
    /// `allow_on_headers_stop_iteration`.
    pub(crate) headers_stop_iteration: bool,
    looks: Vec<Look>,
    spec: Option<&'static str>,
    envoy: &'static str,
    kong: &'static str,
}

/// What a client does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends and waits for the answer.
    Send(Ask),
    /// Sends, and waits for the answer after all other steps.
    Start(Ask),
}

/// What is looked at, besides what the filters say.
#[derive(Clone, Copy)]
enum Look {
    Client,
    ClientBody,
    ClientHeader(&'static str),
    UpstreamHeader(&'static str),
    UpstreamPath,
    UpstreamBody,
    Asked,
}

/// How long a client waits for an answer that should come.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn row(id: &'static str) -> Experiment {
    Experiment {
        id,
        entries: &["a"],
        steps: Vec::new(),
        told: Told::ok(),
        guest: None,
        patience: PATIENCE,
        headers_stop_iteration: true,
        looks: Vec::new(),
        spec: None,
        envoy: "",
        kong: "",
    }
}

impl Experiment {
    pub(crate) fn send(mut self, ask: Ask) -> Self {
        self.steps.push(Step::Send(ask));
        self
    }

    pub(crate) fn start(mut self, ask: Ask) -> Self {
        self.steps.push(Step::Start(ask));
        self
    }

    pub(crate) fn entries(mut self, names: &'static [&'static str]) -> Self {
        self.entries = names;
        self
    }

    pub(crate) fn told(mut self, told: Told) -> Self {
        self.told = told;
        self
    }

    pub(crate) fn guest(mut self, source: &'static str) -> Self {
        self.guest = Some(source);
        self
    }

    /// The client may wait in vain.
    pub(crate) fn may_hang(mut self) -> Self {
        self.patience = Duration::from_secs(2);
        self
    }

    pub(crate) fn without_the_flag(mut self) -> Self {
        self.headers_stop_iteration = false;
        self
    }

    fn look(mut self, look: Look) -> Self {
        self.looks.push(look);
        self
    }

    /// Looks at the statuses that clients got.
    pub(crate) fn client(self) -> Self {
        self.look(Look::Client)
    }

    pub(crate) fn client_body(self) -> Self {
        self.look(Look::ClientBody)
    }

    pub(crate) fn client_header(self, name: &'static str) -> Self {
        self.look(Look::ClientHeader(name))
    }

    pub(crate) fn upstream_header(self, name: &'static str) -> Self {
        self.look(Look::UpstreamHeader(name))
    }

    pub(crate) fn upstream_path(self) -> Self {
        self.look(Look::UpstreamPath)
    }

    pub(crate) fn upstream_body(self) -> Self {
        self.look(Look::UpstreamBody)
    }

    /// Looks at the paths of the calls that were made.
    pub(crate) fn asked(self) -> Self {
        self.look(Look::Asked)
    }

    /// To be seen under the spec profile, where that is not what Envoy shows.
    pub(crate) fn spec(mut self, seen: &'static str) -> Self {
        self.spec = Some(seen);
        self
    }

    pub(crate) fn envoy(mut self, seen: &'static str) -> Self {
        self.envoy = seen;
        self
    }

    pub(crate) fn kong(mut self, seen: &'static str) -> Self {
        self.kong = seen;
        self
    }

    /// To be seen on every host.
    pub(crate) fn everywhere(self, seen: &'static str) -> Self {
        self.envoy(seen).kong(seen)
    }

    pub(crate) fn expected(&self, profile: Profile) -> &'static str {
        match profile {
            Profile::Spec => self.spec.unwrap_or(self.envoy),
            Profile::Envoy => self.envoy,
            Profile::Kong => self.kong,
        }
    }

    /// What was seen, in one line.
    pub(crate) fn report(&self, seen: &Seen) -> String {
        let mut parts = Vec::new();
        if !seen.said.is_empty() {
            parts.push(seen.said.join(", "));
        }
        parts.extend(self.looks.iter().map(|look| seen.part(*look)));
        if parts.is_empty() {
            return "silence".to_owned();
        }
        parts.join(" | ")
    }
}

/// What came of an experiment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// What the filters said, and what the host refused them with a trap.
    pub(crate) said: Vec<String>,
    pub(crate) clients: Vec<Client>,
    pub(crate) upstream: Vec<Upstream>,
    /// The paths of calls.
    pub(crate) asked: Vec<String>,
}

/// What a client got.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    Answer {
        status: u16,
        headers: Headers,
        body: Vec<u8>,
    },
    /// Nothing, or not all, and the connection stays.
    Nothing,
    /// The connection was cut.
    Cut,
}

/// What the upstream got.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) path: String,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

/// Text of a size that a line can show.
fn shown(bytes: &[u8]) -> String {
    match bytes.len() {
        0 => "nothing".to_owned(),
        1..=60 => format!("{:?}", String::from_utf8_lossy(bytes)),
        len => format!("{len} bytes"),
    }
}

fn values(headers: &Headers, name: &str) -> String {
    let values: Vec<_> = headers
        .get_all(name)
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .map(|value| {
            if value.is_empty() {
                "empty".to_owned()
            } else {
                value
            }
        })
        .collect();
    if values.is_empty() {
        return "none".to_owned();
    }
    values.join("+")
}

impl Seen {
    fn part(&self, look: Look) -> String {
        let clients = |part: fn(&Client) -> String| {
            let parts: Vec<_> = self.clients.iter().map(part).collect();
            parts.join(" ")
        };
        let upstream = self.upstream.last();
        match look {
            Look::Client => clients(|client| match client {
                Client::Answer { status, .. } => status.to_string(),
                Client::Nothing => "hangs".to_owned(),
                Client::Cut => "cut".to_owned(),
            }),
            Look::ClientBody => clients(|client| match client {
                Client::Answer { body, .. } => shown(body),
                _ => "-".to_owned(),
            }),
            Look::ClientHeader(name) => match self.clients.last() {
                Some(Client::Answer { headers, .. }) => values(headers, name),
                _ => "-".to_owned(),
            },
            Look::UpstreamHeader(name) => {
                upstream.map_or_else(|| "-".to_owned(), |seen| values(&seen.headers, name))
            }
            Look::UpstreamPath => upstream.map_or_else(|| "-".to_owned(), |seen| seen.path.clone()),
            Look::UpstreamBody => upstream.map_or_else(|| "-".to_owned(), |seen| shown(&seen.body)),
            Look::Asked if self.asked.is_empty() => "no call".to_owned(),
            Look::Asked => format!("called {}", self.asked.join(" ")),
        }
    }
}
