//! Whom a limit counts: the identity behind a request, as one key.

use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::host::Host;
use tollgate_kit::identity::Identity;
use tollgate_kit::keyword;
use tollgate_kit::store::Key;

keyword! {
    /// Whom Kong's `rate-limiting` counts (KONG-SPEC 2.2).
    pub enum LimitBy {
        /// The consumer, else the credential, else the client's address.
        Consumer = "consumer",
        /// The credential, else the client's address.
        Credential = "credential",
        /// The client's address.
        Ip = "ip",
        /// The service that the gateway sends the request to, else the client's address.
        Service = "service",
        /// The first value of a header, else the client's address.
        Header = "header",
        /// One path, for all clients together; for other paths the client's address.
        Path = "path",
    }
}

/// Who a request comes from, as far as it has been looked up. What is not asked for is not paid for.
pub(crate) struct Subjects<'r> {
    pub(crate) headers: &'r HeaderMap,
    pub(crate) identity: Option<&'r Identity>,
    pub(crate) path: &'r [u8],
    pub(crate) host: &'r dyn Host,
    /// The service by the operator's own name for it.
    pub(crate) service: Option<&'r str>,
}

/// What kind of name an identity is, so that a header that spells an address does not pass for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Consumer,
    Credential,
    Address,
    Service,
    Header,
    Path,
}

/// An identity: what it is, and its name.
pub(crate) type Subject<'r> = (Kind, Cow<'r, [u8]>);

impl<'r> Subjects<'r> {
    pub(crate) fn by(&self, by: LimitBy, header: &str, path: &str) -> Subject<'r> {
        let known = match by {
            LimitBy::Consumer => self.consumer().or_else(|| self.credential()),
            LimitBy::Credential => self.credential(),
            LimitBy::Ip => None,
            LimitBy::Service => self.service(),
            LimitBy::Header => self
                .headers
                .first(header)
                .map(|value| (Kind::Header, Cow::Borrowed(value))),
            LimitBy::Path => (self.path == path.as_bytes())
                .then_some((Kind::Path, Cow::Borrowed(self.path))),
        };
        known.unwrap_or_else(|| self.address())
    }

    pub(crate) fn consumer(&self) -> Option<Subject<'r>> {
        let consumer = &self.identity?.consumer;
        (!consumer.is_empty()).then_some((Kind::Consumer, Cow::Borrowed(consumer.as_bytes())))
    }

    pub(crate) fn credential(&self) -> Option<Subject<'r>> {
        let credential = self.identity?.credential.as_ref()?;
        Some((Kind::Credential, Cow::Borrowed(credential.as_bytes())))
    }

    pub(crate) fn service(&self) -> Option<Subject<'r>> {
        let name = match self.service {
            Some(service) => Cow::Borrowed(service.as_bytes()),
            None => Cow::Owned(self.host.service()?),
        };
        Some((Kind::Service, name))
    }

    /// The client's address. A host that does not tell it has one client.
    pub(crate) fn address(&self) -> Subject<'r> {
        let address = self.host.client_address().unwrap_or_default();
        (Kind::Address, Cow::Owned(address))
    }
}

/// The key of a counter: 16 bytes of a SHA-256, which nobody can make collide with another's. Parts are told apart by their
/// lengths.
pub(crate) fn key<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Key {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let digest: [u8; 32] = digest.finalize().into();
    digest.first_chunk().copied().unwrap_or_default()
}

impl Kind {
    /// The word in the counter's key.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Consumer => "consumer",
            Kind::Credential => "credential",
            Kind::Address => "ip",
            Kind::Service => "service",
            Kind::Header => "header",
            Kind::Path => "path",
        }
    }
}
