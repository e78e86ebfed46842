//! Going on, closing, replying.

use bytes::Bytes;

use super::Answer;
use crate::abi::{Status, decode_pairs};
use crate::exchange::{Direction, Reply};
use crate::http::Headers;
use crate::profile::{Flow, Host, Row};
use crate::vm::Callback;
use crate::vm::memory::{Env, Refusal};

pub(super) fn continue_stream(env: &mut Env<'_>, kind: u32) -> Answer {
    let direction = match kind {
        0 => Direction::Request,
        1 => Direction::Response,
        _ => return Err(Status::BadArgument.into()),
    };
    let guest = env.guest();
    // In a root context there is nothing to go on with, and nothing wrong with trying.
    let Some((id, seat)) = guest.seat_id() else {
        return Ok(());
    };
    guest.world.resumed.push((id, seat, direction));
    let stays = guest.rules.headers_stay;
    if let Some((exchange, seat)) = guest.seat()
        && let Some(stage) = exchange.stage(seat, direction)
        && !stays
    {
        stage.headers_open = false;
    }
    Ok(())
}

pub(super) fn close_stream(env: &mut Env<'_>, kind: u32) -> Answer {
    if kind > 1 {
        return Err(Status::BadArgument.into());
    }
    let guest = env.guest();
    let (id, _) = guest.seat_id().ok_or(Status::BadArgument)?;
    guest.world.closed.push(id);
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "the ABI's own arity")]
pub(super) fn send_local_response(
    env: &mut Env<'_>,
    status: u32,
    _details: u32,
    _details_len: u32,
    body: u32,
    body_len: u32,
    headers: u32,
    headers_len: u32,
    _grpc: i32,
) -> Answer {
    let body = Bytes::from(env.read(body, body_len)?);
    let headers = env.read(headers, headers_len)?;
    let headers = decode_pairs(&headers).ok_or(Status::BadArgument)?;
    let guest = env.guest();
    let callback = guest.site.callback;
    let response_phase = matches!(
        callback,
        Callback::ResponseHeaders | Callback::ResponseBody | Callback::ResponseTrailers
    );
    if response_phase {
        guest.find(Host::Kong, Row::LateReply);
    }
    let rules = guest.rules;
    let phased = rules.flow == Flow::Phased;
    let (exchange, _) = guest.seat().ok_or(Status::BadArgument)?;
    let late = phased && (callback == Callback::ResponseBody || exchange.response.sent);
    if late {
        return Err(Refusal::Trap("response already sent"));
    }
    let twice = exchange.reply.is_some() || (phased && exchange.replied);
    if twice {
        guest.find(Host::Kong, Row::ReplyTwice);
    }
    let (exchange, _) = guest.seat().ok_or(Status::BadArgument)?;
    if twice {
        return if phased {
            Err(Refusal::Trap("local response already stashed"))
        } else {
            Ok(())
        };
    }
    let headers = if rules.reply_duplicates {
        headers
    } else {
        last_of_each(headers)
    };
    exchange.reply = Some(Reply {
        status,
        headers,
        body,
    });
    Ok(())
}

fn last_of_each(headers: Headers) -> Headers {
    let mut last = Headers::new();
    for (name, value) in headers {
        last.set(name, value);
    }
    last
}
