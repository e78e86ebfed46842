//! What an entry is to do.

use tollgate_kit::json::Value;

/// An entry's configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    /// `do`: the experiment.
    pub(crate) experiment: String,
    /// `as`: the entry's name in what it says, where a chain has several.
    pub(crate) name: String,
    /// `asked`, `nobody`, `silent`, `closing`: upstreams that answer, refuse, never answer, and hang up.
    pub(crate) asked: String,
    pub(crate) nobody: String,
    pub(crate) silent: String,
    pub(crate) closing: String,
}

impl Orders {
    /// Reads a configuration; what is not there is empty.
    pub(crate) fn read(json: &[u8]) -> Self {
        let value = Value::parse(json).ok();
        let field = |name| {
            let member = value.and_then(|value| value.member(name));
            member
                .and_then(Value::as_str)
                .map(Into::into)
                .unwrap_or_default()
        };
        Self {
            experiment: field("do"),
            name: field("as"),
            asked: field("asked"),
            nobody: field("nobody"),
            silent: field("silent"),
            closing: field("closing"),
        }
    }
}
