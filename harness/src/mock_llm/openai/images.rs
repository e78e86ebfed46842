//! `POST /v1/images/generations`: the smallest picture there is, and what a picture costs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::Answer;
use super::super::api::Api;
use super::super::refusal::Refusal;
use super::super::reply::Usage;
use super::super::tokens;

/// The most pictures of one request, as OpenAI has it.
const MOST: usize = 10;

/// A PNG of one transparent point.
const PICTURE: [u8; 67] = [
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52,
    0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x06, 0x00, 0x00, 0x00, 0x1f, 0x15, 0xc4,
    0x89, 0x00, 0x00, 0x00, 0x0a, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0x00, 0x01, 0x00, 0x00,
    0x05, 0x00, 0x01, 0x0d, 0x0a, 0x2d, 0xb4, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae,
    0x42, 0x60, 0x82,
];

/// A request, as far as the provider reads it.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Request {
    prompt: Option<String>,
    n: Option<usize>,
}

impl Request {
    pub(in super::super) fn answer(&self, created: u64) -> Result<Answer, Refusal> {
        let prompt = self
            .prompt
            .as_deref()
            .ok_or(Refusal::Missing { field: "prompt" })?;
        let n = self.n.unwrap_or(1);
        if !(1..=MOST).contains(&n) {
            return Err(Refusal::Invalid {
                field: "n",
                rule: "must be from 1 to 10",
            });
        }
        let (input, output) = (
            tokens::count(prompt.len()),
            n.saturating_mul(tokens::PER_MADE_IMAGE),
        );
        let picture = STANDARD.encode(PICTURE);
        let pictures: Value = (0..n).map(|_| json!({"b64_json": picture})).collect();
        let mut answer = Answer::whole(
            Api::Images,
            json!({
                "created": created,
                "data": pictures,
                "output_format": "png",
                "usage": {
                    "input_tokens": input,
                    "input_tokens_details": {"text_tokens": input, "image_tokens": 0},
                    "output_tokens": output,
                    "total_tokens": input + output,
                },
            }),
        );
        answer.usage = Usage {
            prompt: input,
            completion: output,
            ..Usage::default()
        };
        Ok(answer)
    }
}
