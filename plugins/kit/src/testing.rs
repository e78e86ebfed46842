//! A scripted host for native tests of filters. It answers reads; what a filter does is in the step it returns.

use crate::headers::HeaderMap;
use crate::host::{
    Authenticated, Clock, Entropy, Failure, Headers, HostKind, Level, Log, Metrics, Platform,
    Shared,
};
use crate::identity::Identity;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

/// Answers as it was told to, and remembers counts and log lines.
#[derive(Debug, Default)]
pub struct ScriptedHost {
    headers: Vec<u8>,
    response: Option<Vec<u8>>,
    kind: Option<HostKind>,
    shared: BTreeMap<String, Vec<u8>>,
    failure: Option<Failure>,
    identity: Option<Identity>,
    now: Cell<Duration>,
    seed: Cell<u8>,
    counts: RefCell<BTreeMap<String, u64>>,
    lines: RefCell<Vec<(Level, String)>>,
}

impl ScriptedHost {
    /// A request with these header lines; `:path` gives the query.
    pub fn with_headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(lines: &[(N, V)]) -> ScriptedHost {
        let lines = lines
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()));
        ScriptedHost {
            headers: HeaderMap::marshal(lines),
            ..ScriptedHost::default()
        }
    }

    /// A host that can't show the request.
    pub fn failing(failure: Failure) -> ScriptedHost {
        ScriptedHost {
            failure: Some(failure),
            ..ScriptedHost::default()
        }
    }

    /// The same, with this response on its way.
    #[must_use]
    pub fn answering<N: AsRef<[u8]>, V: AsRef<[u8]>>(self, lines: &[(N, V)]) -> ScriptedHost {
        let lines = lines
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()));
        ScriptedHost {
            response: Some(HeaderMap::marshal(lines)),
            ..self
        }
    }

    /// The same, as another kind of host than Envoy.
    #[must_use]
    pub fn of_kind(self, kind: HostKind) -> ScriptedHost {
        ScriptedHost {
            kind: Some(kind),
            ..self
        }
    }

    /// The same, with a value that another filter has left.
    #[must_use]
    pub fn sharing(mut self, name: &str, value: &str) -> ScriptedHost {
        self.shared
            .insert(name.to_owned(), value.as_bytes().to_vec());
        self
    }

    /// The same, behind a filter that has authenticated the client.
    #[must_use]
    pub fn authenticated(self, identity: Identity) -> ScriptedHost {
        ScriptedHost {
            identity: Some(identity),
            ..self
        }
    }

    /// Moves the clock.
    pub fn set_now(&self, now: Duration) {
        self.now.set(now);
    }

    /// A counter's value.
    pub fn counted(&self, name: &str) -> u64 {
        self.counts.borrow().get(name).copied().unwrap_or_default()
    }

    /// The log lines so far.
    pub fn lines(&self) -> Vec<(Level, String)> {
        self.lines.borrow().clone()
    }
}

impl Headers for ScriptedHost {
    fn request_headers(&self) -> Result<HeaderMap, Failure> {
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(HeaderMap::unmarshal(self.headers.clone())),
        }
    }

    fn request_query(&self, headers: &HeaderMap) -> Result<Option<Vec<u8>>, Failure> {
        let path = headers.first(":path").unwrap_or_default();
        Ok(path
            .splitn(2, |&byte| byte == b'?')
            .nth(1)
            .map(<[u8]>::to_vec))
    }

    fn request_path(&self, headers: &HeaderMap) -> Result<Vec<u8>, Failure> {
        let path = headers.first(":path").ok_or(Failure::NotNow)?;
        let path = path.split(|&byte| byte == b'?').next();
        Ok(path.unwrap_or_default().to_vec())
    }

    fn response_headers(&self) -> Result<HeaderMap, Failure> {
        match &self.response {
            Some(lines) => Ok(HeaderMap::unmarshal(lines.clone())),
            None => Err(Failure::NotNow),
        }
    }

    fn request_id(&self, headers: &HeaderMap) -> Option<Vec<u8>> {
        headers.first("x-request-id").map(<[u8]>::to_vec)
    }
}

impl Authenticated for ScriptedHost {
    fn identity(&self) -> Option<Identity> {
        self.identity.clone()
    }
}

impl Shared for ScriptedHost {
    fn shared(&self, name: &str) -> Option<Vec<u8>> {
        self.shared.get(name).cloned()
    }
}

impl Platform for ScriptedHost {
    fn kind(&self) -> HostKind {
        self.kind.unwrap_or(HostKind::Envoy)
    }
}

impl Clock for ScriptedHost {
    fn now(&self) -> Duration {
        self.now.get()
    }
}

impl Entropy for ScriptedHost {
    fn random(&self) -> [u8; 16] {
        self.seed.set(self.seed.get().wrapping_add(1));
        [self.seed.get(); 16]
    }
}

impl Metrics for ScriptedHost {
    fn count(&self, name: &str, by: u64) {
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry(name.to_owned()).or_default();
        *count = count.saturating_add(by);
    }
}

impl Log for ScriptedHost {
    fn log(&self, level: Level, message: &str) {
        self.lines.borrow_mut().push((level, message.to_owned()));
    }
}
