//! Who the client is known to be, on its way to the filters that come later.
//!
//! It travels as a property that no client can set: `tollgate.identity` in Envoy's filter state,
//! `kong.ctx.shared.tollgate_identity` in Kong. The value is JSON, so that Envoy's access log and Kong's Lua plugins
//! can use it too. The `X-Consumer-*` headers are for upstreams; no filter believes them.

use crate::host::HostKind;
use crate::json;

/// An authenticated consumer, or the anonymous one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The consumer's id.
    pub consumer: String,
    /// The consumer's name.
    pub username: Option<String>,
    /// The name it has in the operator's own system.
    pub custom_id: Option<String>,
    /// The id (never the key) of the credential that was shown; `None` for the anonymous consumer.
    pub credential: Option<String>,
    /// The groups the consumer is in.
    pub groups: Vec<String>,
    /// What the configuration says about the consumer besides: JSON text, an object.
    pub metadata: Option<String>,
}

impl Identity {
    /// The property's path on a host.
    #[must_use]
    pub fn path(host: HostKind) -> &'static [&'static str] {
        match host {
            // One part with a dot in it: what is set under two parts can't be read back there.
            HostKind::Envoy | HostKind::EnvoyHeadersPass => &["tollgate.identity"],
            HostKind::Kong => &["kong", "ctx", "shared", "tollgate_identity"],
        }
    }

    /// The property's value:
    /// `{"consumer":..,"username":..,"custom_id":..,"credential":..,"anonymous":..,"groups":[..],"metadata":{..}}`,
    /// what is not known left out.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{\"consumer\":".to_vec();
        json::quote(self.consumer.as_bytes(), &mut out);
        for (name, value) in [
            ("username", &self.username),
            ("custom_id", &self.custom_id),
            ("credential", &self.credential),
        ] {
            if let Some(value) = value {
                out.push(b',');
                json::quote(name.as_bytes(), &mut out);
                out.push(b':');
                json::quote(value.as_bytes(), &mut out);
            }
        }
        if self.credential.is_none() {
            out.extend_from_slice(b",\"anonymous\":true");
        }
        if !self.groups.is_empty() {
            out.extend_from_slice(b",\"groups\":[");
            for (index, group) in self.groups.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                json::quote(group.as_bytes(), &mut out);
            }
            out.push(b']');
        }
        if let Some(metadata) = &self.metadata {
            out.extend_from_slice(b",\"metadata\":");
            out.extend_from_slice(metadata.as_bytes());
        }
        out.push(b'}');
        out
    }

    /// Reads the property's value; `None` if it is none.
    #[must_use]
    pub fn from_json(text: &[u8]) -> Option<Identity> {
        let value = json::Value::parse(text).ok()?;
        let text = |name: &str| value.member(name)?.as_str().map(|text| text.into_owned());
        let groups = value.member("groups").map(|groups| {
            groups
                .items()
                .filter_map(|group| group.as_str().map(|group| group.into_owned()))
                .collect()
        });
        Some(Identity {
            consumer: text("consumer")?,
            username: text("username"),
            custom_id: text("custom_id"),
            credential: text("credential"),
            groups: groups.unwrap_or_default(),
            metadata: value
                .member("metadata")
                .and_then(|metadata| std::str::from_utf8(metadata.text()).ok())
                .map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_the_journey() {
        let full = Identity {
            consumer: "c\"1".into(),
            username: Some("bob".into()),
            custom_id: Some("é".into()),
            credential: Some("k1".into()),
            groups: vec!["a".into(), "b".into()],
            metadata: Some(r#"{"plan":"gold"}"#.into()),
        };
        let anonymous = Identity {
            consumer: "nobody".into(),
            ..Identity::default()
        };
        for identity in [full, anonymous] {
            assert_eq!(Identity::from_json(&identity.to_json()), Some(identity));
        }
    }

    #[test]
    fn what_is_no_identity_is_none() {
        for text in ["", "{}", "[]", "{\"consumer\":1}"] {
            assert_eq!(Identity::from_json(text.as_bytes()), None);
        }
    }
}
