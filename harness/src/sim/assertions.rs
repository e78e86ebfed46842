//! What tests say about responses and simulations, with messages that show what came instead.

use std::fmt;

use serde_json::Value;

use super::{Outcome, Response, Sim, UpstreamRequest};

impl Response {
    /// Fails unless the response is complete and has this status.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_status(&self, status: u16) -> &Self {
        let complete = self.outcome == Outcome::Answered;
        assert!(
            complete && self.status() == status,
            "not a complete {status}: {self}"
        );
        self
    }

    /// Fails unless the exchange ended in this way.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_outcome(&self, outcome: Outcome) -> &Self {
        assert_eq!(self.outcome, outcome, "{self}");
        self
    }

    /// Fails unless the client got this header, with this first value.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_header(&self, name: &str, value: &str) -> &Self {
        assert_eq!(self.header(name), Some(value), "{name} of {self}");
        self
    }

    /// Fails if the client got this header.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_no_header(&self, name: &str) -> &Self {
        assert!(!self.headers.contains(name), "{name} is there: {self}");
        self
    }

    /// Fails unless the client got this body.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_body(&self, body: impl AsRef<[u8]>) -> &Self {
        let (got, wanted) = (Text(&self.body), Text(body.as_ref()));
        assert!(got.0 == wanted.0, "the body is not {wanted}: {self}");
        self
    }

    /// Fails unless the client got this body, as JSON.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_body_json(&self, body: &Value) -> &Self {
        let got = serde_json::from_slice::<Value>(&self.body);
        assert!(
            got.as_ref().is_ok_and(|got| got == body),
            "the body is not {body}: {self}"
        );
        self
    }

    /// The request as the upstream got it. Fails if it got none.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_upstream(&self) -> &UpstreamRequest {
        let upstream = self.upstream.as_ref();
        upstream.unwrap_or_else(|| panic!("the request did not reach the upstream: {self}"))
    }

    /// Fails if the request reached the upstream.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_no_upstream(&self) -> &Self {
        if let Some(upstream) = &self.upstream {
            panic!(
                "the request reached the upstream: {} {} {}",
                upstream.method,
                upstream.path,
                Lines(upstream)
            );
        }
        self
    }

    /// Fails unless the upstream got this header, with this first value.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_upstream_header(&self, name: &str, value: &str) -> &Self {
        let upstream = self.assert_upstream();
        let got = upstream.headers.get_str(name);
        assert_eq!(got, Some(value), "{name} of {}", Lines(upstream));
        self
    }

    /// Fails unless the upstream got a request without this header.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_no_upstream_header(&self, name: &str) -> &Self {
        let upstream = self.assert_upstream();
        let there = upstream.headers.contains(name);
        assert!(!there, "{name} is there: {}", Lines(upstream));
        self
    }

    /// Fails unless the upstream got this body.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_upstream_body(&self, body: impl AsRef<[u8]>) -> &Self {
        let (got, wanted) = (Text(&self.assert_upstream().body), Text(body.as_ref()));
        assert!(got.0 == wanted.0, "the upstream got {got}, not {wanted}");
        self
    }

    /// Fails unless the upstream got this path and query.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_upstream_path(&self, path: &str) -> &Self {
        assert_eq!(self.assert_upstream().path, path);
        self
    }
}

impl Sim {
    /// Fails unless a counter or gauge has this value; one that does not exist has 0.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_metric(&self, name: &str, value: i64) -> &Self {
        let metrics = self.shared().metrics();
        let got = metrics.get(name).map_or(0, |metric| metric.value);
        let known: Vec<_> = metrics.keys().collect();
        assert_eq!(got, value, "{name}, of the metrics {known:?}");
        self
    }

    /// Fails if a filter trapped since the start.
    ///
    /// # Panics
    /// As it says.
    #[track_caller]
    pub fn assert_untrapped(&self) -> &Self {
        if let Some(trap) = self.traps().first() {
            panic!("{trap}");
        }
        self
    }

    /// Fails if the filters did something that another host would not stand.
    ///
    /// # Panics
    /// With everything that they did.
    #[track_caller]
    pub fn assert_portable(&self) -> &Self {
        let found: Vec<_> = self.portability().iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "not portable:\n{}", found.join("\n"));
        self
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, status {}", self.outcome, self.status())?;
        write!(f, ", body {}", Text(&self.body))
    }
}

/// The beginning of a body, as text.
struct Text<'a>(&'a [u8]);

/// How many bytes of a body are shown.
const SHOWN: usize = 300;

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..SHOWN).unwrap_or(self.0);
        write!(f, "{:?}", String::from_utf8_lossy(shown))?;
        if shown.len() < self.0.len() {
            write!(f, "... ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

/// Header names with their values.
struct Lines<'a>(&'a UpstreamRequest);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.0.headers.iter() {
            let name = String::from_utf8_lossy(name);
            write!(f, "\n  {name}: {}", value.escape_ascii())?;
        }
        Ok(())
    }
}
