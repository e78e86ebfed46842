//! HTTP header maps as a proxy sees them: ordered lines, names as they came, values as bytes.

use bytes::Bytes;

/// The lines of a header map, in order.
///
/// Names keep the case they came in and are looked up without regard to it; values are bytes, because clients send
/// what they like. Pseudo-headers (`:method`, `:path`, `:status`, ...) are ordinary entries and stand first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Bytes, Bytes)>);

impl Headers {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The first value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// The first value of `name` as text; `None` also where it is not UTF-8.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name)
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Every value of `name`, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Bytes> + 'a {
        self.0
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Every line, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Bytes, &Bytes)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// The number of lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a line named `name` is there.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds a line. A pseudo-header goes behind the pseudo-headers that are there, in front of everything else.
    pub fn push(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        let name = name.into();
        let at = if name.starts_with(b":") {
            self.0
                .iter()
                .take_while(|(n, _)| n.starts_with(b":"))
                .count()
        } else {
            self.0.len()
        };
        self.0.insert(at, (name, value.into()));
    }

    /// Leaves one line for `name`: the first keeps its place and gets `value`, the others go; without one, it is added.
    pub fn set(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (name, value) = (name.into(), value.into());
        let mut value = Some(value);
        self.0.retain_mut(|(n, v)| {
            if !n.eq_ignore_ascii_case(&name) {
                return true;
            }
            match value.take() {
                Some(value) => {
                    *v = value;
                    true
                }
                None => false,
            }
        });
        if let Some(value) = value {
            self.push(name, value);
        }
    }

    /// Removes every line named `name`; tells whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0
            .retain(|(n, _)| !n.eq_ignore_ascii_case(name.as_bytes()));
        self.0.len() != before
    }

    /// Changes the first value of `name` in place and leaves further lines alone; tells whether there was one.
    pub fn replace_first(&mut self, name: &str, value: impl Into<Bytes>) -> bool {
        match self
            .0
            .iter_mut()
            .find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
        {
            Some((_, v)) => {
                *v = value.into();
                true
            }
            None => false,
        }
    }

    /// Makes every name lower-case.
    pub fn lower_case_names(&mut self) {
        for (name, _) in &mut self.0 {
            if name.iter().any(u8::is_ascii_uppercase) {
                *name = name.to_ascii_lowercase().into();
            }
        }
    }

    /// The bytes of all names and values together.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.0.iter().map(|(n, v)| n.len() + v.len()).sum()
    }
}

impl<N: Into<Bytes>, V: Into<Bytes>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(lines: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in lines {
            headers.push(name, value);
        }
        headers
    }
}

impl Extend<(Bytes, Bytes)> for Headers {
    fn extend<I: IntoIterator<Item = (Bytes, Bytes)>>(&mut self, lines: I) {
        for (name, value) in lines {
            self.push(name, value);
        }
    }
}

impl IntoIterator for Headers {
    type Item = (Bytes, Bytes);
    type IntoIter = std::vec::IntoIter<(Bytes, Bytes)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::Headers;

    #[test]
    fn names_keep_their_case_and_are_found_in_any() {
        let headers: Headers = [("X-Key", "a"), ("x-key", "b")].into_iter().collect();
        assert_eq!(headers.get_str("x-KEY"), Some("a"));
        assert_eq!(headers.get_all("X-KEY").count(), 2);
        assert_eq!(
            headers.iter().next().map(|(n, _)| &n[..]),
            Some(&b"X-Key"[..])
        );
    }

    #[test]
    fn setting_leaves_one_line_in_the_place_of_the_first() {
        let mut headers: Headers = [("a", "1"), ("b", "2"), ("A", "3")].into_iter().collect();
        headers.set("a", "9");
        let lines: Vec<_> = headers.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        assert_eq!(lines, [(&b"a"[..], &b"9"[..]), (b"b", b"2")]);
    }

    #[test]
    fn pseudo_headers_stay_in_front() {
        let mut headers: Headers = [("host", "h")].into_iter().collect();
        headers.push(":method", "GET");
        headers.push(":path", "/");
        let names: Vec<_> = headers.iter().map(|(n, _)| n.clone()).collect();
        assert_eq!(names, [":method", ":path", "host"]);
    }
}
