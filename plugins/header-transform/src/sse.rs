//! Server-sent events passing through, each edited by itself ([HTML, section 9.2.6](https://html.spec.whatwg.org/#event-stream-interpretation)).
//!
//! What is kept is the event that has not ended yet, up to a bound. Whatever is not edited passes byte for byte.

/// An event longer than this passes unedited, in bytes.
pub const LONGEST_EVENT: usize = 256 * 1024;

/// A stream of events.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// The lines of an event that has not ended.
    pending: Vec<u8>,
    /// How much of `pending` is lines that are known to have ended.
    scanned: usize,
    /// The event has become too long: it passes until its end.
    passing: bool,
}

impl Events {
    /// More of the stream; what is to go on instead. `edit` is given the data of each event and says what it becomes, or `None`
    /// where it stays.
    pub fn push(
        &mut self,
        chunk: &[u8],
        end: bool,
        edit: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(chunk.len());
        self.pending.extend_from_slice(chunk);
        while let Some(length) = self.line_length() {
            let line_end = self.scanned.saturating_add(length);
            let line = self.pending.get(self.scanned..line_end);
            let blank = line.is_some_and(|line| content(line).is_empty());
            self.scanned = line_end;
            if blank {
                let event: Vec<u8> = self.pending.drain(..line_end).collect();
                self.scanned = 0;
                if std::mem::take(&mut self.passing) {
                    out.extend_from_slice(&event);
                } else {
                    write(&event, edit, &mut out);
                }
            }
        }
        if self.pending.len() > LONGEST_EVENT {
            self.passing = true;
        }
        // What is no whole line stays, so that its end is seen; what is, goes, when the event passes unedited.
        if end {
            out.append(&mut self.pending);
            self.scanned = 0;
        } else if self.passing {
            let keep = if self.scanned > 0 {
                self.scanned
            } else {
                self.pending.len().saturating_sub(1)
            };
            out.extend(self.pending.drain(..keep));
            self.scanned = 0;
        }
        out
    }

    /// The length of the line behind those that are scanned, its end included, when all of it is there.
    fn line_length(&self) -> Option<usize> {
        let rest = self.pending.get(self.scanned..)?;
        let at = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
        match (rest.get(at), rest.get(at.saturating_add(1))) {
            (Some(b'\n'), _) => Some(at.saturating_add(1)),
            (_, Some(b'\n')) => Some(at.saturating_add(2)),
            (_, Some(_)) => Some(at.saturating_add(1)),
            // A line feed may follow.
            (_, None) => None,
        }
    }
}

/// A line without its end.
fn content(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What follows `data:`, if that is what a line is.
fn data(line: &[u8]) -> Option<&[u8]> {
    let line = content(line);
    if line == b"data" {
        return Some(b"");
    }
    let data = line.strip_prefix(b"data:")?;
    Some(data.strip_prefix(b" ").unwrap_or(data))
}

/// Lines with their ends.
fn lines(event: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = event;
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'))
            .map_or(rest.len(), |at| {
                let crlf = rest.get(at..).is_some_and(|rest| rest.starts_with(b"\r\n"));
                at.saturating_add(if crlf { 2 } else { 1 })
            });
        let (line, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        lines.push(line);
        rest = behind;
    }
    lines
}

/// Writes one event, its data edited.
fn write(event: &[u8], edit: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>, out: &mut Vec<u8>) {
    let lines = lines(event);
    let joined = lines
        .iter()
        .filter_map(|line| data(line))
        .collect::<Vec<_>>()
        .join(&b'\n');
    let edited = if joined.is_empty() {
        None
    } else {
        edit(&joined)
    };
    let Some(edited) = edited else {
        out.extend_from_slice(event);
        return;
    };
    let mut written = false;
    for line in lines {
        if data(line).is_none() {
            out.extend_from_slice(line);
        } else if !std::mem::replace(&mut written, true) {
            let ending = line.get(content(line).len()..).unwrap_or_default();
            for piece in edited.split(|byte| matches!(byte, b'\n' | b'\r')) {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(piece);
                out.extend_from_slice(ending);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Doubles the data of events that begin with `{`.
    fn edit(data: &[u8]) -> Option<Vec<u8>> {
        data.starts_with(b"{").then(|| data.repeat(2))
    }

    fn through(pieces: &[&[u8]]) -> String {
        let mut events = Events::default();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(events.push(piece, false, &mut edit));
        }
        out.extend(events.push(b"", true, &mut edit));
        String::from_utf8(out).unwrap()
    }

    const STREAM: &str =
        ": hello\n\nevent: x\r\ndata: {1}\r\nid: 7\r\n\r\ndata:{2}\n\ndata: [DONE]\n\ndata: {3}";

    #[test]
    fn events_are_edited_and_everything_else_passes() {
        assert_eq!(
            through(&[STREAM.as_bytes()]),
            ": hello\n\nevent: x\r\ndata: {1}{1}\r\nid: 7\r\n\r\ndata: {2}{2}\n\ndata: [DONE]\n\ndata: {3}",
            "the last one has no end: it is no event"
        );
    }

    #[test]
    fn data_of_several_lines_is_one_text() {
        assert_eq!(
            through(&[b"data: {\ndata: }\ndata\n\n"]),
            "data: {\ndata: }\ndata: {\ndata: }\ndata: \n\n"
        );
    }

    #[test]
    fn an_event_goes_on_as_soon_as_it_has_ended() {
        let mut events = Events::default();
        assert_eq!(events.push(b"data: {1}\n", false, &mut edit), b"");
        assert_eq!(events.push(b"\nda", false, &mut edit), b"data: {1}{1}\n\n");
        assert_eq!(events.push(b"ta: x\n\n", false, &mut edit), b"data: x\n\n");
    }

    #[test]
    fn an_event_without_end_is_not_kept() {
        let mut events = Events::default();
        let chunk = vec![b'{'; 64 * 1024];
        let mut passed = events.push(b"data: ", false, &mut edit).len();
        for _ in 0..64 {
            passed += events.push(&chunk, false, &mut edit).len();
            assert!(events.pending.len() <= LONGEST_EVENT + chunk.len());
        }
        assert!(passed > 63 * chunk.len());
        let rest = events.push(b"\n\ndata: {1}\n\n", false, &mut edit);
        assert!(
            rest.ends_with(b"\n\ndata: {1}{1}\n\n"),
            "the next one is edited again"
        );
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_stream_is_cut(stream in "(data: ?|\\{1\\}|[DONE]|id: 1|\r\n|\n|\r|:|x){0,24}", cuts in proptest::collection::vec(1..8usize, 0..32)) {
            let mut pieces = Vec::new();
            let mut rest = stream.as_bytes();
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            pieces.push(rest);
            prop_assert_eq!(through(&pieces), through(&[stream.as_bytes()]));
        }

        #[test]
        fn without_an_edit_a_stream_is_the_same(stream in proptest::collection::vec(any::<u8>(), 0..64), cut in 0..64usize) {
            let mut events = Events::default();
            let (a, b) = stream.split_at(cut.min(stream.len()));
            let mut out = events.push(a, false, &mut |_| None);
            out.extend(events.push(b, true, &mut |_| None));
            prop_assert_eq!(out, stream);
        }
    }
}
