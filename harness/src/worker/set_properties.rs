//! What filters set as properties in an exchange, as the exchange leaves it behind.

use std::collections::HashMap;

/// Values by the path that a filter set them under.
#[derive(Clone, Debug, Default)]
pub struct SetProperties(HashMap<Vec<u8>, Vec<u8>>);

impl SetProperties {
    /// The value under a path whose parts are joined by dots. Filters join them by NUL or by dots.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        let exact = self.0.get(path.as_bytes());
        let value = exact.or_else(|| {
            let found = self.0.iter().find(|(set, _)| {
                let set = set.strip_suffix(&[0]).unwrap_or(set);
                let dotted = set.iter().map(|byte| if *byte == 0 { b'.' } else { *byte });
                dotted.eq(path.bytes())
            });
            found.map(|(_, value)| value)
        });
        value.map(Vec::as_slice)
    }
}

impl From<HashMap<Vec<u8>, Vec<u8>>> for SetProperties {
    fn from(set: HashMap<Vec<u8>, Vec<u8>>) -> Self {
        Self(set)
    }
}

impl<'a> FromIterator<(&'a [u8], &'a [u8])> for SetProperties {
    fn from_iter<T: IntoIterator<Item = (&'a [u8], &'a [u8])>>(set: T) -> Self {
        let set = set.into_iter();
        Self(
            set.map(|(path, value)| (path.to_vec(), value.to_vec()))
                .collect(),
        )
    }
}
