//! A completion as server-sent events, in OpenAI's order: the role, one event a token, the reason of the end, the
//! usage if it was asked for, `[DONE]`.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::chat::Completion;
use super::tokens;

/// When each token of an answer is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) first_token_delay: Duration,
    /// The time between two tokens.
    pub(super) token: Duration,
}

impl Pace {
    /// The time from the request to the token with that index.
    pub(super) fn due(&self, token: usize) -> Duration {
        let tokens = u32::try_from(token).unwrap_or(u32::MAX);
        self.first_token_delay
            .saturating_add(self.token.saturating_mul(tokens))
    }
}

/// The events of a completion, each written when it is due, counted from `start`.
pub(super) fn frames(
    completion: &Completion,
    include_usage: bool,
    pace: Pace,
    start: Instant,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + use<> {
    let events = events(completion, include_usage);
    stream::unfold(events.into_iter(), move |mut events| async move {
        let (token, event) = events.next()?;
        let due = start + pace.due(token);
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        Some((Ok(Frame::data(event)), events))
    })
}

/// Each event with the index of the token it waits for.
fn events(completion: &Completion, include_usage: bool) -> Vec<(usize, Bytes)> {
    let chunk = |choices: Value, usage: Option<Value>| {
        let mut chunk = json!({
            "id": completion.id,
            "object": "chat.completion.chunk",
            "created": completion.created,
            "model": completion.model,
            "service_tier": "default",
            "system_fingerprint": null,
            "choices": choices,
        });
        if include_usage && let Value::Object(fields) = &mut chunk {
            // OpenAI names the field in every chunk then, and fills it in the last.
            fields.insert("usage".to_owned(), usage.unwrap_or(Value::Null));
        }
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    let delta = |delta: Value, finish: Option<&str>| {
        chunk(
            json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]),
            None,
        )
    };
    let last = completion.completion_tokens.saturating_sub(1);
    let mut events = vec![(
        0,
        delta(
            json!({"role": "assistant", "content": "", "refusal": null}),
            None,
        ),
    )];
    events.extend(
        tokens::pieces(&completion.text)
            .enumerate()
            .map(|(index, piece)| (index, delta(json!({"content": piece}), None))),
    );
    events.push((last, delta(json!({}), Some(completion.finish.name()))));
    if include_usage {
        events.push((last, chunk(json!([]), Some(completion.usage()))));
    }
    events.push((last, Bytes::from_static(b"data: [DONE]\n\n")));
    events
}
