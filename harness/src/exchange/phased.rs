//! How Kong's nginx passes an exchange through its filters.
//!
//! The request goes phase by phase: every filter sees the headers, then every filter sees the whole body, if there is
//! one, then the upstream is asked. A filter can wait only for its calls, and goes on by itself after the last answer.
//! The response goes piece by piece.

use bytes::Bytes;

use super::state::{Direction, Reply, Waiting};
use super::{Action, Event, ExchangeId, HungReason, ResetReason, arrival};
use crate::abi::FilterAction;
use crate::http::Headers;
use crate::vm::{Callback, Lost, TrapCause, TrapReport};
use crate::worker::{Ran, Worker};

/// How a request phase goes on after a filter's callback.
enum Next {
    Filter,
    Stop,
}

impl Worker {
    pub(crate) fn deliver_phased(&mut self, id: ExchangeId, event: Event) {
        match event {
            Event::RequestHeaders { headers, end } => self.request_headers(id, headers, end),
            Event::RequestBody { chunk, end } => self.request_body(id, &chunk, end),
            // nginx drops them.
            Event::RequestTrailers(_) => self.request_body(id, &Bytes::new(), true),
            Event::ResponseHeaders { headers, end } => self.response_headers(id, headers, end),
            Event::ResponseBody { chunk, end } => self.response_body(id, chunk, end),
            Event::ResponseTrailers(_) => self.response_body(id, Bytes::new(), true),
            Event::CallDone(..) => {}
        }
    }

    fn request_headers(&mut self, id: ExchangeId, headers: Headers, end: bool) {
        let profile = self.setup.profile;
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        if exchange.request.begun {
            return;
        }
        let mut unique = profile.rules().refused_duplicates.iter();
        let twice = unique.any(|name| headers.get_all(name).count() > 1);
        let headers = arrival::arrange(exchange, profile, headers);
        exchange.request.begun = true;
        exchange.request.complete = end || twice;
        exchange.announced_length = headers
            .get_str("content-length")
            .and_then(|length| length.parse().ok());
        exchange.request.headers = headers;
        if twice {
            exchange.refuse(400, &[]);
            return;
        }
        self.headers_phase(id, 0);
    }

    fn request_body(&mut self, id: ExchangeId, chunk: &Bytes, end: bool) {
        let limit = self.setup.limits.body_buffer;
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        let message = &mut exchange.request;
        if !message.begun || message.complete {
            return;
        }
        message.received += chunk.len() as u64;
        message.body.extend_from_slice(chunk);
        message.spilled |= message.body.len() > limit;
        message.complete = end;
        let ready = exchange.headers_done && end;
        if ready {
            self.body_phase(id, 0);
        }
    }

    fn headers_phase(&mut self, id: ExchangeId, from: usize) {
        for seat in from..self.seats(id) {
            let Some(exchange) = self.world.exchanges.get(&id) else {
                return;
            };
            let lines = exchange.request.headers.len();
            let ran = self.run(id, seat, Callback::RequestHeaders, |vm, world, site| {
                vm.on_message(world, site, lines, false)
            });
            if let Next::Stop =
                self.after_request_callback(id, seat, &ran, Waiting::RequestHeaders(seat + 1))
            {
                return;
            }
        }
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        exchange.headers_done = true;
        if exchange.request.complete {
            self.body_phase(id, 0);
        }
    }

    fn body_phase(&mut self, id: ExchangeId, from: usize) {
        for seat in from..self.seats(id) {
            let Some(exchange) = self.world.exchanges.get(&id) else {
                return;
            };
            let size = exchange.request.body.len();
            // Also where an earlier filter took the body away.
            if exchange.request.received == 0 {
                break;
            }
            let ran = self.run(id, seat, Callback::RequestBody, |vm, world, site| {
                vm.on_message(world, site, size, true)
            });
            if let Next::Stop =
                self.after_request_callback(id, seat, &ran, Waiting::RequestBody(seat + 1))
            {
                return;
            }
        }
        let knobs = &self.setup.knobs;
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        let mut headers = arrival::depart(exchange, knobs);
        let mut body = Bytes::from(exchange.request.body.to_vec());
        // Gone on after a call, it starts from what it was.
        let announced = exchange.announced_length.filter(|length| *length > 0);
        if let Some(length) = announced
            && from > 0
            && self.setup.profile.rules().length_reverts_after_call
        {
            headers.set("content-length", length.to_string());
            body.truncate(length);
        }
        exchange.send_headers(Direction::Request, headers, body.is_empty());
        exchange.send_body(Direction::Request, body, true);
    }

    fn seats(&self, id: ExchangeId) -> usize {
        self.world
            .exchanges
            .get(&id)
            .map_or(0, |exchange| exchange.seats.len())
    }

    fn after_request_callback(
        &mut self,
        id: ExchangeId,
        seat: usize,
        ran: &Ran<FilterAction>,
        then: Waiting,
    ) -> Next {
        let action = match ran {
            Ran::Done(action) => *action,
            Ran::Bypassed => return Next::Filter,
            Ran::Failed => {
                // A reply that was made before the trap still goes out.
                let exchange = self.world.exchanges.get_mut(&id).filter(|e| !e.over);
                match exchange.and_then(|exchange| exchange.reply.take()) {
                    Some(reply) => self.reply_phased(id, reply),
                    None => self.fail_request(id),
                }
                return Next::Stop;
            }
        };
        let made = self.calls_made(id, seat);
        let resumed = self
            .world
            .resumed
            .drain(..)
            .any(|(exchange, _, _)| exchange == id);
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return Next::Stop;
        };
        if exchange.over {
            return Next::Stop;
        }
        if let Some(reply) = exchange.reply.take() {
            self.reply_phased(id, reply);
            return Next::Stop;
        }
        match action {
            FilterAction::Continue if made > 0 => {
                self.crash_continued(id, seat, then);
                Next::Stop
            }
            FilterAction::Continue => Next::Filter,
            FilterAction::Pause if !exchange.calls.is_empty() => {
                exchange.waiting = Some(then);
                Next::Stop
            }
            FilterAction::Pause if resumed => Next::Filter,
            FilterAction::Pause => {
                exchange.over = true;
                exchange.actions.push(Action::Hung(match then {
                    Waiting::RequestHeaders(_) => HungReason::PausedHeaders,
                    Waiting::RequestBody(_) => HungReason::PausedBody,
                }));
                Next::Stop
            }
        }
    }

    fn crash_continued(&mut self, id: ExchangeId, seat: usize, then: Waiting) {
        self.crash_with(TrapReport {
            filter: self.seat_name(id, seat),
            callback: match then {
                Waiting::RequestHeaders(_) => Callback::RequestHeaders,
                Waiting::RequestBody(_) => Callback::RequestBody,
            },
            exchange: Some(id),
            request: None,
            cause: TrapCause::Host(
                "segmentation fault: a call was made and `Continue` returned, the request ends before the answer",
            ),
            backtrace: Vec::new(),
            kills_worker: true,
            lost: Lost::default(),
        });
    }

    /// After a call's answer. A trap there lets the request pass.
    pub(crate) fn call_answered_phased(&mut self, id: ExchangeId, ran: &Ran<()>) {
        self.world
            .resumed
            .retain(|(exchange, _, _)| *exchange != id);
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        if exchange.over {
            return;
        }
        if let Ran::Done(()) = ran
            && let Some(reply) = exchange.reply.take()
        {
            self.reply_phased(id, reply);
            return;
        }
        if !exchange.calls.is_empty() {
            return;
        }
        match exchange.waiting.take() {
            Some(Waiting::RequestHeaders(seat)) => self.headers_phase(id, seat),
            Some(Waiting::RequestBody(seat)) => self.body_phase(id, seat),
            None => {}
        }
    }

    /// A trap in a request phase: Kong's 500, which no filter sees.
    fn fail_request(&mut self, id: ExchangeId) {
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        if exchange.over {
            return;
        }
        let body = Bytes::from(format!(
            "{{\n  \"message\":\"An unexpected error occurred\",\n  \"request_id\":\"{}\"\n}}",
            exchange.request_id
        ));
        let headers: Headers = [
            (":status", "500".to_owned()),
            ("content-type", "application/json; charset=utf-8".to_owned()),
            ("content-length", body.len().to_string()),
        ]
        .into_iter()
        .collect();
        exchange.unlogged = true;
        exchange.replied = true;
        exchange.response.begun = true;
        exchange.send_headers(Direction::Response, headers, false);
        exchange.send_body(Direction::Response, body, true);
    }

    /// A filter answers in a request phase. All filters see the response, also those that saw no request.
    fn reply_phased(&mut self, id: ExchangeId, reply: Reply) {
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        let mut calls: Vec<_> = exchange.calls.drain().collect();
        calls.sort_unstable();
        exchange
            .actions
            .extend(calls.iter().map(|call| Action::CancelCall(*call)));
        for call in &calls {
            self.world.owners.remove(call);
        }
        let rules = self.setup.profile.rules();
        let mut body = reply.body.to_vec();
        if rules.reply_line_feed && !body.is_empty() {
            body.push(b'\n');
        }
        let mut headers: Headers = [(":status", reply.status.to_string())]
            .into_iter()
            .collect();
        if !body.is_empty() && !reply.headers.contains("content-type") {
            headers.push("content-type", "text/plain");
        }
        for (name, value) in reply.headers {
            if !name.starts_with(b":") && !name.eq_ignore_ascii_case(b"content-length") {
                headers.push(name, value);
            }
        }
        headers.push("content-length", body.len().to_string());
        exchange.replied = true;
        exchange.waiting = None;
        let bodyless = body.is_empty() || exchange.is_head();
        self.pass_response_headers(id, headers, bodyless);
        if !bodyless {
            self.pass_response_body(id, Bytes::from(body), true);
        }
    }

    fn response_headers(&mut self, id: ExchangeId, headers: Headers, end: bool) {
        let Some(exchange) = self.world.exchanges.get(&id) else {
            return;
        };
        if exchange.replied || exchange.response.begun {
            return;
        }
        self.pass_response_headers(id, headers, end);
    }

    fn response_body(&mut self, id: ExchangeId, chunk: Bytes, end: bool) {
        let Some(exchange) = self.world.exchanges.get(&id) else {
            return;
        };
        if exchange.replied || !exchange.response.begun || exchange.response.complete {
            return;
        }
        self.pass_response_body(id, chunk, end);
    }

    fn pass_response_headers(&mut self, id: ExchangeId, headers: Headers, bodyless: bool) {
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        if exchange.over {
            return;
        }
        exchange.declared_length = headers
            .get_str("content-length")
            .and_then(|length| length.parse().ok());
        exchange.response.begun = true;
        exchange.response.bodyless = bodyless;
        exchange.response.headers = headers;
        for seat in 0..self.seats(id) {
            let Some(exchange) = self.world.exchanges.get(&id) else {
                return;
            };
            let lines = exchange.response.headers.len();
            let ran = self.run(id, seat, Callback::ResponseHeaders, |vm, world, site| {
                vm.on_message(world, site, lines, false)
            });
            if let Ran::Done(FilterAction::Pause) = ran {
                self.warn(id, seat, "\"ResponseHeaders\" returned \"PAUSE\": local response expected but none produced");
            }
            if self.late_reply(id) {
                break;
            }
        }
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        if exchange.over {
            return;
        }
        let headers = exchange.response.headers.clone();
        let empty = exchange.declared_length == Some(0) && !exchange.is_head();
        exchange.send_headers(Direction::Response, headers, bodyless);
        if bodyless {
            exchange.response.complete = true;
            if empty {
                self.show_response(id, 0, Bytes::new(), true, true);
            }
        }
    }

    /// A reply from `on_response_headers`: its status counts, its headers do not, and its body stands in for the first
    /// chunk of the upstream's. Later filters do not see the headers (running). Whether there was one.
    fn late_reply(&mut self, id: ExchangeId) -> bool {
        let exchange = self.world.exchanges.get_mut(&id);
        if let Some(exchange) = exchange
            && let Some(reply) = exchange.reply.take()
        {
            exchange
                .response
                .headers
                .set(":status", reply.status.to_string());
            exchange.first_chunk = Some(reply.body);
            return true;
        }
        false
    }

    fn pass_response_body(&mut self, id: ExchangeId, chunk: Bytes, end: bool) {
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        if exchange.over {
            return;
        }
        exchange.response.complete = end;
        exchange.response.received += chunk.len() as u64;
        let chunk = match exchange.first_chunk.take() {
            Some(body) if !chunk.is_empty() => body,
            kept => {
                exchange.first_chunk = kept;
                chunk
            }
        };
        // With a Content-Length the end is told only where one chunk is all of it; without, in a callback of its own.
        match exchange.declared_length {
            Some(length) => {
                let told = length == chunk.len() as u64;
                self.show_response(id, 0, chunk, told, end);
            }
            None => {
                if !chunk.is_empty() {
                    self.show_response(id, 0, chunk, false, false);
                }
                if end {
                    self.show_response(id, 0, Bytes::new(), true, true);
                }
            }
        }
    }

    /// Passes a piece of the response through the filters from `from` on. `told` is what they are told of the end,
    /// `last` is whether it is there.
    fn show_response(&mut self, id: ExchangeId, from: usize, chunk: Bytes, told: bool, last: bool) {
        let limit = self.setup.limits.response_buffers;
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        let declared = exchange.declared_length.is_some();
        if from >= exchange.seats.len() {
            exchange.send_body(Direction::Response, chunk, last);
            return;
        }
        let Some(stage) = exchange.stage(from, Direction::Response) else {
            return;
        };
        let holding = !stage.held.is_empty();
        stage.held.extend_from_slice(&chunk);
        let size = stage.held.len();
        if holding && size <= limit && !last {
            return;
        }
        if holding && size > limit {
            stage.end_untold = true;
        }
        if size == 0 && !told {
            self.forward_response(id, from, told, last);
            return;
        }
        if holding && last && !declared && size <= limit {
            // What was held, then the end by itself.
            self.ask_response(id, from, false);
            self.forward_response(id, from, false, false);
            self.show_response(id, from, Bytes::new(), true, true);
            return;
        }
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        let Some(stage) = exchange.stage(from, Direction::Response) else {
            return;
        };
        let told_here = (told || (holding && last)) && !stage.end_untold;
        let spent = stage.pause_spent;
        stage.pause_spent |= holding;
        let paused = self.ask_response(id, from, told_here);
        if paused && (holding || spent) {
            self.warn(
                id,
                from,
                "response body cannot be paused again: the buffers are used up",
            );
        } else if paused && !last {
            return;
        }
        self.forward_response(id, from, told, last);
    }

    /// Runs the body callback on what a filter holds; whether it paused.
    fn ask_response(&mut self, id: ExchangeId, seat: usize, told: bool) -> bool {
        let mut size = 0;
        if let Some(exchange) = self.world.exchanges.get_mut(&id)
            && let Some(stage) = exchange.stage(seat, Direction::Response)
        {
            stage.body_open = true;
            size = stage.held.len();
        }
        let ran = self.run(id, seat, Callback::ResponseBody, |vm, world, site| {
            vm.on_message(world, site, size, told)
        });
        if self.world.closed.contains(&id) {
            self.reset(id, ResetReason::ClosedByFilter);
        }
        matches!(ran, Ran::Done(FilterAction::Pause))
    }

    fn forward_response(&mut self, id: ExchangeId, seat: usize, told: bool, last: bool) {
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        if exchange.over {
            return;
        }
        let Some(stage) = exchange.stage(seat, Direction::Response) else {
            return;
        };
        stage.body_open = false;
        let data = stage.held.split().freeze();
        if !data.is_empty() || told || last {
            self.show_response(id, seat + 1, data, told, last);
        }
    }
}
