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
    lines: usize,
    complete: bool,
}

impl HeaderMap {
    /// Reads a marshalled map. Never fails: what can't be read is left out, and [`HeaderMap::is_complete`] is false.
    pub fn unmarshal(marshalled: Vec<u8>) -> HeaderMap {
        let declared = word(&marshalled, 0);
        let mut map = HeaderMap {
            lines: declared.unwrap_or(0),
            marshalled,
            complete: false,
        };
        // The declared count is not believed: walk until the first line that is not there.
        let found = map.iter().count();
        // Fewer than four bytes is how hosts spell "no headers".
        map.complete = declared.is_none_or(|declared| declared == found);
        map.lines = found;
        map
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
        self.lines
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// The lines in order: name, value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut data = self.lines.saturating_mul(8).saturating_add(4);
        (0..self.lines).map_while(move |line| {
            let lengths = line.saturating_mul(8).saturating_add(4);
            let name = part(
                &self.marshalled,
                &mut data,
                word(&self.marshalled, lengths)?,
            )?;
            let value = part(
                &self.marshalled,
                &mut data,
                word(&self.marshalled, lengths.saturating_add(4))?,
            )?;
            Some((name, value))
        })
    }

    /// Every value of a header, in order. The name's case does not matter.
    pub fn all<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m [u8]> {
        self.iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// The first value of a header.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(word.try_into().ok()?)).ok()
}

/// The bytes from `data` on, which moves behind them and their NUL.
fn part<'m>(bytes: &'m [u8], data: &mut usize, length: usize) -> Option<&'m [u8]> {
    let end = data.checked_add(length)?;
    let part = bytes.get(*data..end)?;
    *data = end.checked_add(1)?;
    Some(part)
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
