//! The header map as the ABI hands it over, read in place.
//!
//! [proxy-wasm 0.2.1](https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1) marshals a map as a count, the
//! lengths of all names and values, and then the bytes, each with a NUL behind it. Hosts get this wrong in ways that
//! matter: an empty map may be 0 or 1 byte long, and nginx cuts the map off in the middle when a request has too many
//! headers. So nothing here trusts a length, and [`HeaderMap::is_complete`] tells whether all lines are there.

/// Header lines in the order of the host, pseudo-headers (`:method`) among them. Values are bytes: no host promises UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderMap {
    marshalled: Vec<u8>,
    lines: Vec<Line>,
    complete: bool,
}

/// Where a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    name: usize,
    name_length: usize,
    value: usize,
    value_length: usize,
}

impl HeaderMap {
    /// Reads a marshalled map. Never fails: what can't be read is left out, and [`HeaderMap::is_complete`] is false.
    pub fn unmarshal(marshalled: Vec<u8>) -> HeaderMap {
        let declared = word(&marshalled, 0);
        // Fewer than four bytes is how hosts spell "no headers".
        let Some(declared) = declared else {
            return HeaderMap {
                complete: true,
                ..HeaderMap::default()
            };
        };
        // The declared count is not believed: every line takes ten bytes at least.
        let mut lines = Vec::with_capacity(declared.min(marshalled.len() / 10));
        let mut data = declared.saturating_mul(8).saturating_add(4);
        while lines.len() < declared {
            let Some(line) = Line::read(&marshalled, lines.len(), &mut data) else {
                break;
            };
            lines.push(line);
        }
        let complete = lines.len() == declared;
        HeaderMap {
            marshalled,
            lines,
            complete,
        }
    }

    /// The wire form of some header lines.
    pub fn marshal<'a>(lines: impl IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<u8> {
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        let mut out = Vec::new();
        out.extend_from_slice(&size(lines.clone().into_iter().count()));
        for (name, value) in lines.clone() {
            out.extend_from_slice(&size(name.len()));
            out.extend_from_slice(&size(value.len()));
        }
        for (name, value) in lines {
            for part in [name, value] {
                out.extend_from_slice(part);
                out.push(0);
            }
        }
        out
    }

    /// Whether every line the host declared could be read.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines in order: name, value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines
            .iter()
            .map(|line| (self.name(line), self.value(line)))
    }

    /// Every value of a header, in order. The name's case does not matter.
    pub fn all<'m>(&'m self, name: &str) -> impl Iterator<Item = &'m [u8]> {
        let named = move |line: &&Line| {
            line.name_length == name.len() && self.name(line).eq_ignore_ascii_case(name.as_bytes())
        };
        self.lines.iter().filter(named).map(|line| self.value(line))
    }

    /// The first value of a header.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    fn name(&self, line: &Line) -> &[u8] {
        slice(&self.marshalled, line.name, line.name_length).unwrap_or_default()
    }

    fn value(&self, line: &Line) -> &[u8] {
        slice(&self.marshalled, line.value, line.value_length).unwrap_or_default()
    }
}

impl Line {
    /// The line of this number, whose bytes begin at `data`, which moves behind them.
    fn read(marshalled: &[u8], number: usize, data: &mut usize) -> Option<Line> {
        let lengths = number.saturating_mul(8).saturating_add(4);
        let name_length = word(marshalled, lengths)?;
        let value_length = word(marshalled, lengths.saturating_add(4))?;
        let name = *data;
        let value = name.checked_add(name_length)?.checked_add(1)?;
        let end = value.checked_add(value_length)?;
        // Only the last NUL may be missing.
        if end > marshalled.len() {
            return None;
        }
        *data = end.checked_add(1)?;
        Some(Line {
            name,
            name_length,
            value,
            value_length,
        })
    }
}

fn slice(bytes: &[u8], start: usize, length: usize) -> Option<&[u8]> {
    bytes.get(start..start.checked_add(length)?)
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(word.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn look_ups_ignore_case_and_keep_repeats() {
        let lines: [(&[u8], &[u8]); 3] = [(b"ApiKey", b"a"), (b"x", b"\xff"), (b"apikey", b"b")];
        let map = HeaderMap::unmarshal(HeaderMap::marshal(lines));
        assert_eq!(map.all("APIKEY").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(map.first("X"), Some(&b"\xff"[..]));
        assert_eq!((map.len(), map.is_complete()), (3, true));
    }

    #[test]
    fn an_empty_map_may_be_spelled_in_many_ways() {
        for marshalled in [vec![], vec![0], vec![0; 4], vec![0; 9]] {
            let map = HeaderMap::unmarshal(marshalled);
            assert!(map.is_empty() && map.is_complete());
        }
    }

    #[test]
    fn a_map_cut_off_in_the_middle_is_not_complete() {
        let lines: [(&[u8], &[u8]); 2] = [(b"a", b"1"), (b"b", b"2")];
        let whole = HeaderMap::marshal(lines);
        // Only the last NUL may be missing.
        for length in 4..whole.len() - 1 {
            assert!(
                !HeaderMap::unmarshal(whole[..length].to_vec()).is_complete(),
                "{length}"
            );
        }
    }

    #[test]
    fn a_count_that_is_a_lie_is_not_believed() {
        let map = HeaderMap::unmarshal(u32::MAX.to_le_bytes().to_vec());
        assert!(map.is_empty() && !map.is_complete());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..64), name in "[a-z]{0,3}") {
            let map = HeaderMap::unmarshal(bytes);
            let _ = (map.iter().count(), map.first(&name), map.all(&name).count());
        }

        #[test]
        fn lines_survive_marshalling(lines in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..9), proptest::collection::vec(any::<u8>(), 0..9)), 0..9)) {
            let map = HeaderMap::unmarshal(HeaderMap::marshal(lines.iter().map(|(name, value)| (&name[..], &value[..]))));
            let back: Vec<_> = map.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            prop_assert_eq!(back, lines);
        }
    }
}
