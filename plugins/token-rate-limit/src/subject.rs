//! Whom a limit counts: the identity behind a request, as one key.

use crate::own_limits::OwnLimits;
use crate::path;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::cell::OnceCell;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::host::Host;
use tollgate_kit::identity::Identity;
use tollgate_kit::store::Key;

/// One part of whom a rule counts. Where a request has no such part, its client's address stands for it, as in Kong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The consumer, else the credential.
    Consumer,
    Credential,
    /// The first of the consumer's groups.
    Group,
    /// The client's address.
    Ip,
    /// The first value of the header.
    Header(String),
    /// The service that the gateway sends the request to.
    Service,
    Route,
    /// The normalised path.
    Path,
    /// The normalised path where it is this one; all clients together.
    ThisPath(String),
    /// The model that is asked for.
    Model,
    /// Who makes it: see [`Client::provider`].
    Provider,
}

impl Part {
    /// As a configuration spells it.
    pub(crate) fn word(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Part::Consumer => "consumer",
            Part::Credential => "credential",
            Part::Group => "group",
            Part::Ip => "ip",
            Part::Header(name) => return Cow::Owned(format!("header:{name}")),
            Part::Service => "service",
            Part::Route => "route",
            Part::Path | Part::ThisPath(_) => "path",
            Part::Model => "model",
            Part::Provider => "provider",
        })
    }

    /// Whether it is part of who a client is known to be.
    pub(crate) fn is_identity(&self) -> bool {
        matches!(self, Part::Consumer | Part::Credential | Part::Group)
    }

    /// What it may turn out to be, by the word for each, in the order in which a request is asked.
    fn kinds(&self) -> Vec<(Cow<'static, str>, Kind)> {
        let own = match self {
            Part::Consumer => Kind::Consumer,
            Part::Credential => Kind::Credential,
            Part::Group => Kind::Group,
            Part::Ip => Kind::Address,
            Part::Header(_) => Kind::Header,
            Part::Service => Kind::Service,
            Part::Route => Kind::Route,
            Part::Path | Part::ThisPath(_) => Kind::Path,
            Part::Model => Kind::Model,
            Part::Provider => Kind::Provider,
        };
        let mut kinds = vec![(self.word(), own)];
        if *self == Part::Consumer {
            kinds.push((Part::Credential.word(), Kind::Credential));
        }
        // These are known of every request.
        if !matches!(self, Part::Ip | Part::Path | Part::Model | Part::Provider) {
            kinds.push((Part::Ip.word(), Kind::Address));
        }
        kinds
    }
}

/// What a part turned out to be, so that a header that spells an address does not pass for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Consumer,
    Credential,
    Group,
    Address,
    Header,
    Service,
    Route,
    Path,
    Model,
    Provider,
}

impl Kind {
    /// The word in the counter's key.
    fn word(self) -> &'static str {
        match self {
            Kind::Consumer => "consumer",
            Kind::Credential => "credential",
            Kind::Group => "group",
            Kind::Address => "ip",
            Kind::Header => "header",
            Kind::Service => "service",
            Kind::Route => "route",
            Kind::Path => "path",
            Kind::Model => "model",
            Kind::Provider => "provider",
        }
    }
}

/// Who a request comes from and what it is for. Parts that only the host knows are asked for when a rule wants them.
pub(crate) struct Client<'r> {
    pub(crate) headers: &'r HeaderMap,
    pub(crate) identity: Option<&'r Identity>,
    pub(crate) own_limits: &'r OwnLimits,
    /// As the client wrote it, without the query.
    pub(crate) path: &'r [u8],
    pub(crate) host: &'r dyn Host,
    /// The client's address, once it has been asked for.
    pub(crate) address: OnceCell<Vec<u8>>,
    /// The service by the operator's own name for it.
    pub(crate) service: Option<&'r str>,
    /// `None` before the body has been read, and where it names none.
    pub(crate) model: Option<&'r str>,
    pub(crate) provider: Option<&'r str>,
}

impl<'r> Client<'r> {
    fn part<'p>(&'p self, part: &'p Part) -> (Kind, Cow<'p, [u8]>) {
        let text = |kind, text: &'p str| (kind, Cow::Borrowed(text.as_bytes()));
        let told = |kind, value: Option<Vec<u8>>| value.map(|value| (kind, Cow::Owned(value)));
        let known = match part {
            Part::Consumer => self
                .consumer()
                .map(|consumer| text(Kind::Consumer, consumer))
                .or_else(|| {
                    self.credential()
                        .map(|credential| text(Kind::Credential, credential))
                }),
            Part::Credential => self
                .credential()
                .map(|credential| text(Kind::Credential, credential)),
            Part::Group => self.groups().first().map(|group| text(Kind::Group, group)),
            Part::Ip => None,
            Part::Header(name) => self
                .headers
                .first(name)
                .map(|value| (Kind::Header, Cow::Borrowed(value))),
            Part::Service => match self.service {
                Some(service) => Some(text(Kind::Service, service)),
                None => told(Kind::Service, self.host.service()),
            },
            Part::Route => told(Kind::Route, self.host.route()),
            Part::Path => Some((Kind::Path, Cow::Owned(path::normalised(self.path)))),
            Part::ThisPath(this) => {
                (path::normalised(self.path) == this.as_bytes()).then(|| text(Kind::Path, this))
            }
            // A request that names none has the provider's default.
            Part::Model => Some(text(Kind::Model, self.model.unwrap_or_default())),
            Part::Provider => Some(text(Kind::Provider, self.provider.unwrap_or_default())),
        };
        // A host that does not tell the address has one client.
        known.unwrap_or_else(|| {
            let ask = || self.host.client_address().unwrap_or_default();
            (Kind::Address, Cow::Borrowed(self.address.get_or_init(ask)))
        })
    }

    pub(crate) fn consumer(&self) -> Option<&'r str> {
        let consumer = self.identity?.consumer.as_str();
        (!consumer.is_empty()).then_some(consumer)
    }

    pub(crate) fn credential(&self) -> Option<&'r str> {
        self.identity?.credential.as_deref()
    }

    pub(crate) fn groups(&self) -> &'r [String] {
        self.identity.map_or(&[], |identity| &identity.groups)
    }

    /// The key of the counter for these parts, under a scope: a namespace and a rule's name. `typed` tells a header's value from an address
    /// that is spelled alike; Kong does not.
    pub(crate) fn key(&self, scope: &[&str], parts: &[Part], typed: bool) -> Key {
        let mut digest = Digest::of(scope);
        for part in parts {
            let (kind, value) = self.part(part);
            digest.identified(part, kind, &value, typed);
        }
        digest.key()
    }
}

/// The key of the counter for a subject that is spelled out, part by part; `named` knows the value of a word.
///
/// # Errors
/// The words of which one is wanted, for the first part that nothing is said of.
pub(crate) fn key_of_named(
    scope: &[&str],
    parts: &[Part],
    typed: bool,
    mut named: impl FnMut(&str) -> Option<String>,
) -> Result<Key, Vec<String>> {
    let mut digest = Digest::of(scope);
    for part in parts {
        let kinds = part.kinds();
        let found = kinds
            .iter()
            .find_map(|(word, kind)| Some((kind, named(word)?)));
        let Some((kind, value)) = found else {
            return Err(kinds
                .into_iter()
                .map(|(word, _)| word.into_owned())
                .collect());
        };
        let value = match kind {
            Kind::Path => path::normalised(value.as_bytes()),
            _ => value.into_bytes(),
        };
        digest.identified(part, *kind, &value, typed);
    }
    Ok(digest.key())
}

/// The key of something that is nobody's counter.
pub(crate) fn key(parts: &[&str]) -> Key {
    Digest::of(parts).key()
}

/// The same, of bytes.
pub(crate) fn digest(parts: &[&[u8]]) -> Key {
    let mut digest = Digest::default();
    parts.iter().for_each(|part| digest.part(part));
    digest.key()
}

/// 16 bytes of a SHA-256, which nobody can make collide with another's. Parts are told apart by their lengths.
#[derive(Default)]
struct Digest(Sha256);

impl Digest {
    fn of(scope: &[&str]) -> Digest {
        let mut digest = Digest::default();
        for text in scope {
            digest.part(text.as_bytes());
        }
        digest
    }

    /// A part of a subject, as what it turned out to be.
    fn identified(&mut self, part: &Part, kind: Kind, value: &[u8], typed: bool) {
        if typed {
            self.part(kind.word().as_bytes());
            if let (Kind::Header, Part::Header(name)) = (kind, part) {
                self.part(name.as_bytes());
            }
        }
        self.part(value);
    }

    fn part(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn key(self) -> Key {
        let digest: [u8; 32] = self.0.finalize().into();
        digest.first_chunk().copied().unwrap_or_default()
    }
}

/// Who makes a model: what stands in front of a slash in its name (`openai/gpt-4.1`), else who speaks its API.
pub(crate) fn provider(model: Option<&str>, api: tollgate_llm::Api) -> &str {
    use tollgate_llm::Api;
    match model.and_then(|model| model.split_once('/')) {
        Some((provider, _)) => provider,
        None => match api {
            Api::Messages | Api::MessagesCount => "anthropic",
            Api::Generate | Api::Embed | Api::GenerateCount => "gemini",
            _ => "openai",
        },
    }
}

/// The identity that headers claim, for an operator who says that something in front of the filter sets them and removes a client's.
pub(crate) fn claimed(headers: &HeaderMap) -> Option<Identity> {
    let text = |name: &str| {
        let value = headers.first(name).filter(|value| !value.is_empty())?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    let (consumer, credential) = (text("x-consumer-id"), text("x-credential-identifier"));
    if consumer.is_none() && credential.is_none() {
        return None;
    }
    let groups = text("x-consumer-groups").unwrap_or_default();
    Some(Identity {
        consumer: consumer.unwrap_or_default(),
        username: text("x-consumer-username"),
        custom_id: text("x-consumer-custom-id"),
        credential,
        groups: groups
            .split(',')
            .map(|group| group.trim().to_owned())
            .filter(|group| !group.is_empty())
            .collect(),
        metadata: None,
    })
}
