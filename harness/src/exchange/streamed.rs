//! How Envoy passes an exchange through its filters.
//!
//! Each piece of a message goes through the chain as it comes. A filter that pauses holds what it was shown; what
//! follows is added and shown with it, until it says `Continue` or is told to go on.

use bytes::Bytes;

use super::state::{Direction, Gate, Reply};
use super::{Action, Event, ExchangeId, HungReason, ResetReason, arrival, join_lines};
use crate::abi::FilterAction;
use crate::http::Headers;
use crate::profile::{Finding, Host, Row};
use crate::vm::Callback;
use crate::worker::{Ran, Worker};

use Direction::{Request, Response};

/// How many header lines came on the wire: the Host is among them, the other pseudo-headers are not.
fn lines(headers: &Headers) -> usize {
    let names = headers.iter().map(|(name, _)| name);
    names
        .filter(|name| !name.starts_with(b":") || *name == ":authority")
        .count()
}

impl Worker {
    pub(crate) fn deliver_streamed(&mut self, id: ExchangeId, event: Event) {
        match event {
            Event::RequestHeaders { headers, end } => self.begin(id, Request, headers, end),
            Event::ResponseHeaders { headers, end } => self.begin(id, Response, headers, end),
            Event::RequestBody { chunk, end } => self.receive(id, Request, chunk, end),
            Event::ResponseBody { chunk, end } => self.receive(id, Response, chunk, end),
            Event::RequestTrailers(trailers) => self.end_with(id, Request, trailers),
            Event::ResponseTrailers(trailers) => self.end_with(id, Response, trailers),
            Event::CallDone(..) => {}
        }
    }

    fn begin(&mut self, id: ExchangeId, direction: Direction, headers: Headers, end: bool) {
        let profile = self.setup.profile;
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        if exchange.message(direction).begun || (direction == Response && exchange.replied) {
            return;
        }
        let too_many = direction == Request
            && profile
                .rules()
                .request_lines
                .is_some_and(|most| lines(&headers) > most);
        let headers = match direction {
            Request => arrival::arrange(exchange, profile, headers),
            Response => headers,
        };
        let message = exchange.message(direction);
        message.begun = true;
        message.bodyless = end;
        message.complete = end;
        message.headers = headers;
        if profile.rules().lower_case_names {
            message.headers.lower_case_names();
        }
        let rules = profile.rules();
        join_lines(
            &mut message.headers,
            match direction {
                Request => rules.joined_request,
                Response => rules.joined_response,
            },
        );
        if too_many {
            exchange.refuse(431, &[]);
            return;
        }
        self.pass_headers(id, direction, 0);
    }

    /// Whether a message that comes from outside is still wanted.
    fn wanted(&mut self, id: ExchangeId, direction: Direction) -> bool {
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return false;
        };
        let own = direction == Response && exchange.replied;
        let message = exchange.message(direction);
        message.begun && !message.complete && !own
    }

    fn receive(&mut self, id: ExchangeId, direction: Direction, chunk: Bytes, end: bool) {
        if !self.wanted(id, direction) {
            return;
        }
        if let Some(exchange) = self.world.exchanges.get_mut(&id) {
            let message = exchange.message(direction);
            message.received += chunk.len() as u64;
            message.complete = end;
        }
        if self.flows(id, direction) {
            self.pass_body(id, direction, 0, chunk, end);
        }
    }

    fn end_with(&mut self, id: ExchangeId, direction: Direction, trailers: Headers) {
        if !self.wanted(id, direction) {
            return;
        }
        let lower_case = self.setup.profile.rules().lower_case_names;
        if let Some(exchange) = self.world.exchanges.get_mut(&id) {
            let message = exchange.message(direction);
            message.complete = true;
            message.trailers = trailers;
            if lower_case {
                message.trailers.lower_case_names();
            }
        }
        if self.flows(id, direction) {
            self.pass_trailers(id, direction, 0);
        }
    }

    /// Whether the message still moves.
    fn flows(&mut self, id: ExchangeId, direction: Direction) -> bool {
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return false;
        };
        let replied = direction == Request && exchange.replied;
        !exchange.over && !replied && !exchange.message(direction).finished
    }

    /// The seat at a position of the message's way; `None` at its end.
    fn seat_at(&self, id: ExchangeId, direction: Direction, position: usize) -> Option<usize> {
        let seats = self.world.exchanges.get(&id)?.seats.len();
        if position >= seats {
            None
        } else if direction == Response && self.setup.profile.rules().responses_reversed {
            Some(seats - 1 - position)
        } else {
            Some(position)
        }
    }

    /// Whether a filter takes no part: a reply was made before the request reached it.
    fn left_out(&self, id: ExchangeId, direction: Direction, seat: usize) -> bool {
        let exchange = self.world.exchanges.get(&id);
        let seat = exchange.and_then(|exchange| exchange.seats.get(seat));
        seat.is_none_or(|seat| seat.bypassed || (direction == Response && !seat.began))
    }

    /// What a callback left behind; whether the message moves on.
    fn settle(&mut self, id: ExchangeId, direction: Direction) -> bool {
        let reply = self
            .world
            .exchanges
            .get_mut(&id)
            .and_then(|exchange| exchange.reply.take());
        if let Some(reply) = reply {
            self.reply_streamed(id, reply);
            return false;
        }
        if self.world.closed.contains(&id) {
            self.reset(id, ResetReason::ClosedByFilter);
        }
        self.flows(id, direction)
    }

    fn pass_headers(&mut self, id: ExchangeId, direction: Direction, from: usize) {
        let mut position = from;
        while let Some(seat) = self.seat_at(id, direction, position) {
            position += 1;
            if self.left_out(id, direction, seat) {
                self.mark_passed(id, direction, seat);
                continue;
            }
            let Some(exchange) = self.world.exchanges.get_mut(&id) else {
                return;
            };
            let message = exchange.message(direction);
            let (lines, end) = (message.headers.len(), message.bodyless);
            if let Some(stage) = exchange.stage(seat, direction) {
                stage.headers_open = true;
            }
            if let Some(seat) = exchange.seats.get_mut(seat) {
                seat.began = true;
            }
            let callback = match direction {
                Request => Callback::RequestHeaders,
                Response => Callback::ResponseHeaders,
            };
            let ran = self.run(id, seat, callback, |vm, world, site| {
                vm.on_message(world, site, lines, end)
            });
            match ran {
                Ran::Done(action) => {
                    if !self.settle(id, direction) {
                        return;
                    }
                    self.note(id, seat, callback, end, action);
                    if action == FilterAction::Pause {
                        self.shut(id, direction, seat);
                        return;
                    }
                    self.mark_passed(id, direction, seat);
                }
                Ran::Bypassed => self.mark_passed(id, direction, seat),
                Ran::Failed => {
                    self.fail_stream(id);
                    return;
                }
            }
        }
        if let Some(exchange) = self.world.exchanges.get_mut(&id) {
            let message = exchange.message(direction);
            let (headers, end) = (message.headers.clone(), message.bodyless);
            exchange.send_headers(direction, headers, end);
        }
    }

    fn mark_passed(&mut self, id: ExchangeId, direction: Direction, seat: usize) {
        if let Some(exchange) = self.world.exchanges.get_mut(&id)
            && let Some(stage) = exchange.stage(seat, direction)
        {
            stage.headers_passed = true;
            stage.headers_open = false;
        }
    }

    /// A pause from the headers: with the flag only they wait, without it everything does.
    fn shut(&mut self, id: ExchangeId, direction: Direction, seat: usize) {
        let held = self.setup.knobs.headers_stop_iteration;
        if let Some(exchange) = self.world.exchanges.get_mut(&id)
            && let Some(stage) = exchange.stage(seat, direction)
        {
            stage.gate = if held { Gate::Held } else { Gate::Shut };
        }
    }

    /// Notes what Kong would not stand. Waiting for more of a body is fine there: all of it comes at once.
    fn note(
        &mut self,
        id: ExchangeId,
        seat: usize,
        callback: Callback,
        end: bool,
        action: FilterAction,
    ) {
        if !matches!(callback, Callback::RequestHeaders | Callback::RequestBody) {
            return;
        }
        let exchange = self.world.exchanges.get(&id);
        let waits = exchange.is_some_and(|exchange| !exchange.calls.is_empty());
        let row = match action {
            FilterAction::Continue if self.calls_made(id, seat) > 0 => Row::CallThenContinue,
            FilterAction::Pause if callback == Callback::RequestBody && !end => return,
            FilterAction::Pause if !waits => Row::PauseWithoutCall,
            _ => return,
        };
        let finding = Finding {
            host: Host::Kong,
            row,
            callback: callback.name(),
        };
        self.world.find(Some(id), finding);
    }

    fn pass_body(
        &mut self,
        id: ExchangeId,
        direction: Direction,
        position: usize,
        chunk: Bytes,
        end: bool,
    ) {
        let limit = self.setup.limits.body_buffer;
        let Some(seat) = self.seat_at(id, direction, position) else {
            if let Some(exchange) = self.world.exchanges.get_mut(&id) {
                exchange.send_body(direction, chunk, end);
            }
            return;
        };
        if self.left_out(id, direction, seat) {
            self.pass_body(id, direction, position + 1, chunk, end);
            return;
        }
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        let Some(stage) = exchange.stage(seat, direction) else {
            return;
        };
        stage.held.extend_from_slice(&chunk);
        stage.end |= end;
        let (size, end) = (stage.held.len(), stage.end);
        match stage.gate {
            // The reader is told to slow down (`Worker::held`), nothing is refused.
            Gate::Shut => return,
            Gate::Held if size > limit => {
                self.too_large(id, direction);
                return;
            }
            Gate::Held | Gate::Open => stage.body_open = true,
        }
        let callback = match direction {
            Request => Callback::RequestBody,
            Response => Callback::ResponseBody,
        };
        let ran = self.run(id, seat, callback, |vm, world, site| {
            vm.on_message(world, site, size, end)
        });
        match ran {
            Ran::Done(action) => {
                if !self.settle(id, direction) {
                    return;
                }
                self.note(id, seat, callback, end, action);
                match action {
                    FilterAction::Continue => self.forward(id, direction, position),
                    FilterAction::Pause => self.hold(id, direction, seat),
                }
            }
            Ran::Bypassed => self.forward(id, direction, position),
            Ran::Failed => self.fail_stream(id),
        }
    }

    fn hold(&mut self, id: ExchangeId, direction: Direction, seat: usize) {
        let limit = self.setup.limits.body_buffer;
        let mut over = false;
        if let Some(exchange) = self.world.exchanges.get_mut(&id)
            && let Some(stage) = exchange.stage(seat, direction)
        {
            stage.gate = Gate::Held;
            over = stage.held.len() > limit;
        }
        if over {
            self.too_large(id, direction);
        }
    }

    /// Passes on everything that a filter holds and was shown.
    fn forward(&mut self, id: ExchangeId, direction: Direction, position: usize) {
        let Some(seat) = self.seat_at(id, direction, position) else {
            return;
        };
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        let Some(stage) = exchange.stage(seat, direction) else {
            return;
        };
        stage.gate = Gate::Open;
        stage.body_open = false;
        stage.headers_open = false;
        let data = stage.held.split().freeze();
        let end = std::mem::take(&mut stage.end);
        let trailers = std::mem::take(&mut stage.trailers);
        let headers = !std::mem::replace(&mut stage.headers_passed, true);
        if headers {
            self.pass_headers(id, direction, position + 1);
        }
        if (!data.is_empty() || end) && self.flows(id, direction) {
            self.pass_body(id, direction, position + 1, data, end);
        }
        if trailers && self.flows(id, direction) {
            self.pass_trailers(id, direction, position + 1);
        }
    }

    fn pass_trailers(&mut self, id: ExchangeId, direction: Direction, position: usize) {
        let Some(seat) = self.seat_at(id, direction, position) else {
            if let Some(exchange) = self.world.exchanges.get_mut(&id) {
                exchange.send_trailers(direction);
            }
            return;
        };
        if self.left_out(id, direction, seat) {
            self.pass_trailers(id, direction, position + 1);
            return;
        }
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        let lines = exchange.message(direction).trailers.len();
        let Some(stage) = exchange.stage(seat, direction) else {
            return;
        };
        stage.trailers = true;
        if stage.gate == Gate::Shut {
            return;
        }
        stage.trailers_open = true;
        let callback = match direction {
            Request => Callback::RequestTrailers,
            Response => Callback::ResponseTrailers,
        };
        let ran = self.run(id, seat, callback, |vm, world, site| {
            vm.on_trailers(world, site, lines)
        });
        match ran {
            Ran::Done(action) => {
                if !self.settle(id, direction) {
                    return;
                }
                match action {
                    FilterAction::Continue => self.forward(id, direction, position),
                    FilterAction::Pause => self.hold(id, direction, seat),
                }
            }
            Ran::Bypassed => self.forward(id, direction, position),
            Ran::Failed => self.fail_stream(id),
        }
    }

    /// A guest told a seat to go on.
    pub(crate) fn resume_streamed(&mut self, id: ExchangeId, seat: usize, direction: Direction) {
        if !self.flows(id, direction) {
            return;
        }
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        let seats = exchange.seats.len();
        let Some(stage) = exchange.stage(seat, direction) else {
            return;
        };
        let reversed = direction == Response && self.setup.profile.rules().responses_reversed;
        let position = if reversed { seats - 1 - seat } else { seat };
        match stage.gate {
            Gate::Open => {}
            Gate::Held => self.forward(id, direction, position),
            Gate::Shut => {
                // Nothing behind the headers was shown to the filter: it is now.
                stage.gate = Gate::Open;
                stage.headers_open = false;
                stage.headers_passed = true;
                let data = stage.held.split().freeze();
                let end = std::mem::take(&mut stage.end);
                let trailers = std::mem::take(&mut stage.trailers);
                self.pass_headers(id, direction, position + 1);
                if (!data.is_empty() || end) && self.flows(id, direction) {
                    self.pass_body(id, direction, position, data, end);
                }
                if trailers && self.flows(id, direction) {
                    self.pass_trailers(id, direction, position);
                }
            }
        }
    }

    /// After a call's answer.
    pub(crate) fn call_answered_streamed(&mut self, id: ExchangeId, ran: &Ran<()>) {
        match ran {
            Ran::Failed => self.hang(id),
            Ran::Done(()) | Ran::Bypassed => {
                self.settle(id, Request);
            }
        }
    }

    /// The one who was to go on with the request is dead (running: the client waits for its own patience).
    fn hang(&mut self, id: ExchangeId) {
        if let Some(exchange) = self.world.exchanges.get_mut(&id)
            && !exchange.over
        {
            exchange.over = true;
            exchange.actions.push(Action::Hung(HungReason::DeadFilter));
        }
    }

    /// A body outgrew the buffer while a filter held it.
    fn too_large(&mut self, id: ExchangeId, direction: Direction) {
        let sent = self
            .world
            .exchanges
            .get(&id)
            .is_some_and(|exchange| exchange.response.sent);
        let (status, body) = match direction {
            Request => (413, &b"Payload Too Large"[..]),
            Response if sent => {
                self.reset(id, ResetReason::ResponseTooLarge);
                return;
            }
            Response => (500, &b"Internal Server Error"[..]),
        };
        let reply = Reply {
            status,
            headers: Headers::new(),
            body: Bytes::from_static(body),
        };
        self.reply_streamed(id, reply);
    }

    /// A filter is dead and nothing may pass.
    fn fail_stream(&mut self, id: ExchangeId) {
        let sent = self
            .world
            .exchanges
            .get(&id)
            .is_some_and(|exchange| exchange.response.sent);
        if sent {
            self.reset(id, ResetReason::FilterFailed);
            return;
        }
        let reply = Reply {
            status: 503,
            headers: Headers::new(),
            body: Bytes::new(),
        };
        self.reply_streamed(id, reply);
    }

    /// Answers the client. From a request phase the reply passes the response callbacks of the filters that saw the
    /// request; from a response phase it goes out as it is.
    fn reply_streamed(&mut self, id: ExchangeId, reply: Reply) {
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return;
        };
        if exchange.over || exchange.response.finished {
            return;
        }
        if exchange.response.sent {
            self.reset(id, ResetReason::LateReply);
            return;
        }
        let Reply {
            status,
            headers,
            body,
        } = reply;
        let mut lines: Headers = [(":status", status.to_string())].into_iter().collect();
        if !body.is_empty() {
            lines.push("content-length", body.len().to_string());
            if !headers.contains("content-type") {
                lines.push("content-type", "text/plain");
            }
        }
        for (name, value) in headers {
            let own = [":status", "content-length"]
                .iter()
                .any(|own| name.eq_ignore_ascii_case(own.as_bytes()));
            if !own {
                lines.push(name, value);
            }
        }
        if exchange.request.sent {
            exchange.actions.push(Action::DropUpstream);
        }
        let direct = exchange.response.begun;
        let bodyless = body.is_empty() || exchange.is_head();
        exchange.replied = true;
        exchange.response.begun = true;
        exchange.response.complete = true;
        exchange.response.bodyless = bodyless;
        exchange.response.headers = lines;
        if self.setup.profile.rules().lower_case_names {
            exchange.response.headers.lower_case_names();
        }
        if direct {
            let headers = exchange.response.headers.clone();
            exchange.send_headers(Response, headers, bodyless);
            if !bodyless {
                exchange.send_body(Response, body, true);
            }
            return;
        }
        self.pass_headers(id, Response, 0);
        if !bodyless && self.flows(id, Response) {
            self.pass_body(id, Response, 0, body, true);
        }
    }
}
