//! What a step brought: the client's side and the upstream's.

use bytes::Bytes;

use crate::http::Headers;

/// What came of one request.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// What the client got.
    pub(crate) response: Response,
    /// What the upstream got. None: it was not called.
    pub(crate) upstream: Option<Seen>,
}

/// What the client got.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// The header lines, in order.
    pub(crate) headers: Headers,
    /// The whole body.
    pub(crate) body: Bytes,
}

/// What the upstream got.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The method.
    pub(crate) method: String,
    /// The raw target, with the query.
    pub(crate) target: String,
    /// The header lines, in order.
    pub(crate) headers: Headers,
    /// The whole body.
    pub(crate) body: Bytes,
}

impl Seen {
    /// The raw path, without the query.
    pub(crate) fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(&self.target, |(path, _)| path)
    }

    /// The text after `?`, empty if there is none.
    pub(crate) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }
}
