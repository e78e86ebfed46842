//! Header lines while rules work on them: the map as it came, and what has become of the names that were touched.

use std::borrow::Cow;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::step::HeaderEdit;

/// Headers being changed.
#[derive(Clone, Debug)]
pub struct HeaderDraft<'m> {
    map: &'m HeaderMap,
    changes: Vec<Change>,
}

/// What a name has become.
#[derive(Clone, Debug)]
struct Change {
    /// As it is to be spelled.
    name: String,
    values: Vec<Vec<u8>>,
}

impl<'m> HeaderDraft<'m> {
    /// Nothing changed yet.
    #[must_use]
    pub fn of(map: &'m HeaderMap) -> HeaderDraft<'m> {
        HeaderDraft {
            map,
            changes: Vec::new(),
        }
    }

    fn change(&self, name: &str) -> Option<&Change> {
        self.changes
            .iter()
            .find(|change| change.name.eq_ignore_ascii_case(name))
    }

    /// The values of a name as they are now.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        match self.change(name) {
            Some(change) => change.values.iter().map(Vec::as_slice).collect(),
            None => self.map.all(name).collect(),
        }
    }

    /// The first value of a name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        match self.change(name) {
            Some(change) => change.values.first().map(Vec::as_slice),
            None => self.map.first(name),
        }
    }

    /// Whether there is a line of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// Gives a name these values, one line each.
    pub fn set(&mut self, name: &str, values: Vec<Vec<u8>>) {
        let known = self
            .changes
            .iter_mut()
            .find(|change| change.name.eq_ignore_ascii_case(name));
        match known {
            Some(change) => {
                name.clone_into(&mut change.name);
                change.values = values;
            }
            None => self.changes.push(Change {
                name: name.to_owned(),
                values,
            }),
        }
    }

    /// Adds a line behind those that are there.
    pub fn append(&mut self, name: &str, value: Vec<u8>) {
        let mut values: Vec<Vec<u8>> = self.values(name).into_iter().map(<[u8]>::to_vec).collect();
        values.push(value);
        self.set(name, values);
    }

    /// Takes all lines of a name away.
    pub fn remove(&mut self, name: &str) {
        if self.has(name) {
            self.set(name, Vec::new());
        }
    }

    /// Moves all lines of a name to another, over what is there. Whether there was anything to move.
    pub fn rename(&mut self, from: &str, to: &str) -> bool {
        let values: Vec<Vec<u8>> = self.values(from).into_iter().map(<[u8]>::to_vec).collect();
        if values.is_empty() {
            return false;
        }
        if !from.eq_ignore_ascii_case(to) {
            self.set(from, Vec::new());
        }
        self.set(to, values);
        true
    }

    /// What has to be done to the map: nothing for names that are as they were, further lines where only lines were added.
    #[must_use]
    pub fn edits(self) -> Vec<HeaderEdit> {
        let mut edits = Vec::new();
        for Change { name, values } in self.changes {
            let before: Vec<&[u8]> = self.map.all(&name).collect();
            let added = match before.len() {
                0 => None,
                kept if values.iter().take(kept).eq(before.iter()) => Some(kept),
                _ => None,
            };
            let name = Cow::<'static, str>::Owned(name);
            if values.is_empty() {
                if !before.is_empty() {
                    edits.push(HeaderEdit::Remove(name));
                }
                continue;
            }
            let mut values = values.into_iter().skip(added.unwrap_or(0));
            if added.is_none()
                && let Some(first) = values.next()
            {
                edits.push(HeaderEdit::Set(name.clone(), first));
            }
            edits.extend(values.map(|value| HeaderEdit::Add(name.clone(), value)));
        }
        edits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(edit: impl FnOnce(&mut HeaderDraft<'_>)) -> Vec<String> {
        let lines: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"A", b"2"), (b"b", b"3")];
        let map = HeaderMap::unmarshal(HeaderMap::marshal(lines));
        let mut draft = HeaderDraft::of(&map);
        edit(&mut draft);
        let shown = |edit: HeaderEdit| match edit {
            HeaderEdit::Set(name, value) => format!("{name}={}", String::from_utf8_lossy(&value)),
            HeaderEdit::Add(name, value) => format!("{name}+{}", String::from_utf8_lossy(&value)),
            HeaderEdit::Remove(name) => format!("-{name}"),
        };
        draft.edits().into_iter().map(shown).collect()
    }

    #[test]
    fn only_what_differs_is_done() {
        assert_eq!(edits(|_| ()), [] as [&str; 0]);
        assert_eq!(edits(|draft| draft.remove("c")), [] as [&str; 0]);
        assert_eq!(
            edits(|draft| draft.set("A", vec![b"1".to_vec(), b"2".to_vec()])),
            [] as [&str; 0]
        );
        assert_eq!(edits(|draft| draft.append("A", b"4".to_vec())), ["A+4"]);
        assert_eq!(edits(|draft| draft.append("C", b"4".to_vec())), ["C=4"]);
        assert_eq!(edits(|draft| draft.set("b", vec![b"9".to_vec()])), ["b=9"]);
        assert_eq!(edits(|draft| draft.remove("A")), ["-A"]);
        assert_eq!(
            edits(|draft| assert!(draft.rename("a", "b"))),
            ["-a", "b=1", "b+2"]
        );
        assert_eq!(
            edits(|draft| assert!(!draft.rename("c", "b"))),
            [] as [&str; 0]
        );
    }

    #[test]
    fn reads_see_what_was_written() {
        let map = HeaderMap::default();
        let mut draft = HeaderDraft::of(&map);
        draft.append("X-A", b"1".to_vec());
        draft.append("x-a", b"2".to_vec());
        assert_eq!(draft.values("X-a"), [b"1", b"2"]);
        assert!(draft.rename("x-a", "x-b") && !draft.has("x-a"));
        draft.remove("x-b");
        assert!(!draft.has("x-b") && draft.edits().is_empty());
    }
}
