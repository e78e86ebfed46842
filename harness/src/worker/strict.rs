//! Strict: what does not work on every host fails here, and is named.

use bytes::Bytes;

use super::Worker;
use crate::abi::LogLevel;
use crate::exchange::{Action, Direction, ExchangeId, ResetReason};
use crate::http::Headers;
use crate::profile::Finding;

impl Worker {
    /// In strict mode, what the filters did before any request, with the name of the first entry: at the start, whose act
    /// it was is known by the callback alone.
    pub(super) fn not_portable_yet(&self) -> Option<(String, Finding)> {
        let finding = self.setup.strict.then(|| self.world.findings.first())??;
        let first = self.slots.first().and_then(|slot| slot.roots.first());
        Some((
            first.map_or_else(String::new, |root| root.name.clone()),
            *finding,
        ))
    }

    /// In strict mode, fails the exchanges for which a filter did what does not work everywhere.
    pub(super) fn refuse_unportable(&mut self) {
        if !self.setup.strict {
            return;
        }
        let breaches = self.world.exchanges.iter();
        let mut breaches: Vec<_> = breaches
            .filter(|(_, exchange)| !exchange.over)
            .filter_map(|(id, exchange)| Some((*id, exchange.breach?)))
            .collect();
        breaches.sort_unstable_by_key(|(id, _)| *id);
        for (id, finding) in breaches {
            let name = self.seat_name(id, 0);
            self.world
                .log(&name, LogLevel::Error, format!("strict: {finding}"));
            self.refuse(id, finding);
        }
    }

    /// Answers 500 in the place of whatever was to happen, unless the client has headers already.
    fn refuse(&mut self, id: ExchangeId, finding: Finding) {
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        // What this turn of the worker brought about has not been done yet.
        let undone = std::mem::take(&mut exchange.actions);
        let not_yet = |direction| {
            undone.iter().any(|action| match direction {
                Direction::Request => matches!(action, Action::SendRequestHeaders { .. }),
                Direction::Response => matches!(action, Action::SendResponseHeaders { .. }),
            })
        };
        let cuts = undone
            .iter()
            .any(|action| matches!(action, Action::Reset(_)));
        let (asked, answered) = (
            exchange.request.sent && !not_yet(Direction::Request),
            exchange.response.sent && !not_yet(Direction::Response),
        );
        if answered || cuts {
            self.reset(id, ResetReason::NotPortable);
            return;
        }
        if asked {
            exchange.actions.push(Action::DropUpstream);
        }
        exchange.calls.clear();
        let body = Bytes::from(format!("strict: {finding}\n"));
        let headers: Headers = [
            (":status", "500".to_owned()),
            ("content-type", "text/plain".to_owned()),
            ("content-length", body.len().to_string()),
        ]
        .into_iter()
        .collect();
        exchange.replied = true;
        exchange.response.begun = true;
        exchange.response.finished = false;
        let bodyless = exchange.is_head();
        exchange.send_headers(Direction::Response, headers, bodyless);
        if !bodyless {
            exchange.send_body(Direction::Response, body, true);
        }
        exchange.over = true;
    }
}
