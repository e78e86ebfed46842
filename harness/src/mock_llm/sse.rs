//! The writer of server-sent events, in every spelling that the HTML standard allows (section 9.2.6).

use serde_json::Value;

use super::answer::{Data, Event};
use super::misbehaviour::Eol;

/// How events are spelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spelling {
    pub(super) eol: Eol,
    /// A comment line before each event.
    pub(super) comments: bool,
    /// Each event's data on several lines.
    pub(super) multiline: bool,
}

impl Spelling {
    /// Writes an event; `halved` cuts its JSON in the middle.
    pub(super) fn write(self, event: &Event, halved: bool, out: &mut Vec<u8>) {
        let eol = match self.eol {
            Eol::Lf => "\n",
            Eol::CrLf => "\r\n",
            Eol::Cr => "\r",
        };
        let mut line = |parts: [&str; 2]| {
            for part in parts.into_iter().chain([eol]) {
                out.extend_from_slice(part.as_bytes());
            }
        };
        if self.comments {
            line([": keep-alive", ""]);
        }
        if let Some(name) = event.name {
            line(["event: ", name]);
        }
        let mut data = match &event.data {
            Data::Done => "[DONE]".to_owned(),
            Data::Json(data) if self.multiline => pretty(data),
            Data::Json(data) => data.to_string(),
        };
        if halved {
            data.truncate(data.floor_char_boundary(data.len() / 2));
        }
        for part in data.split('\n') {
            line(["data: ", part]);
        }
        line(["", ""]);
    }
}

/// JSON over several lines. No line break stands within a string: JSON escapes it.
fn pretty(data: &Value) -> String {
    format!("{data:#}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(spelling: Spelling, halved: bool) -> String {
        let event = Event::new(Some("ping"), 0, json!({"a": "x\ny", "b": [1]}));
        let mut out = Vec::new();
        spelling.write(&event, halved, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_has_its_name_its_data_and_an_empty_line() {
        let plain = written(Spelling::default(), false);
        assert_eq!(plain, "event: ping\ndata: {\"a\":\"x\\ny\",\"b\":[1]}\n\n");
        let halved = written(Spelling::default(), true);
        assert_eq!(halved, "event: ping\ndata: {\"a\":\"x\\ny\n\n");
    }

    #[test]
    fn every_spelling_says_the_same() {
        for eol in [Eol::Lf, Eol::CrLf, Eol::Cr] {
            let spelling = Spelling {
                eol,
                comments: true,
                multiline: true,
            };
            let text = written(spelling, false);
            let lines: Vec<&str> = match eol {
                Eol::Lf => text.split('\n').collect(),
                Eol::CrLf => text.split("\r\n").collect(),
                Eol::Cr => text.split('\r').collect(),
            };
            assert_eq!(lines[..2], [": keep-alive", "event: ping"]);
            let data: Vec<&str> = lines
                .iter()
                .filter_map(|line| line.strip_prefix("data: "))
                .collect();
            assert!(data.len() > 1, "{text:?}");
            let data: Value = serde_json::from_str(&data.join("\n")).unwrap();
            assert_eq!(data, json!({"a": "x\ny", "b": [1]}));
        }
    }
}
