//! `POST /v1/embeddings`: unit vectors that depend on the model and the text alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::Answer;
use super::super::api::Api;
use super::super::fnv::hash;
use super::super::refusal::Refusal;
use super::super::reply::Usage;
use super::super::tokens;

/// The vector's length when none is asked for, as OpenAI's small model has it.
const DIMENSIONS: usize = 1536;

/// The longest vector, as OpenAI's large model has it.
const MAX_DIMENSIONS: usize = 3072;

/// The most inputs of one request, as OpenAI has it.
const MAX_INPUTS: usize = 2048;

/// An embeddings request, as far as the provider reads it.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Request {
    input: Option<Input>,
    dimensions: Option<usize>,
    encoding_format: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// One input's identity, from which its vector grows, and its length.
struct Item {
    hash: u64,
    tokens: usize,
}

impl Item {
    fn text(text: &str) -> Self {
        Self {
            hash: hash(text.bytes()),
            tokens: tokens::count(text.len()),
        }
    }

    fn tokens(list: &[u32]) -> Self {
        Self {
            hash: hash(list.iter().flat_map(|token| token.to_le_bytes())),
            tokens: list.len(),
        }
    }
}

#[derive(Clone, Copy)]
enum Encoding {
    Float,
    Base64,
}

impl Request {
    pub(in super::super) fn answer(&self, model: &str) -> Result<Answer, Refusal> {
        let (document, prompt) = self.embed(model)?;
        let mut answer = Answer::whole(Api::Embeddings, document);
        answer.usage = Usage {
            prompt,
            ..Usage::default()
        };
        Ok(answer)
    }

    /// The answer's body, and the tokens of the inputs.
    fn embed(&self, model: &str) -> Result<(Value, usize), Refusal> {
        let items: Vec<Item> = match self
            .input
            .as_ref()
            .ok_or(Refusal::Missing { field: "input" })?
        {
            Input::Text(text) => vec![Item::text(text)],
            Input::Texts(texts) => texts.iter().map(|text| Item::text(text)).collect(),
            Input::Tokens(list) => vec![Item::tokens(list)],
            Input::TokenLists(lists) => lists.iter().map(|list| Item::tokens(list)).collect(),
        };
        if items.is_empty() || items.len() > MAX_INPUTS || items.iter().any(|item| item.tokens == 0)
        {
            return Err(Refusal::Invalid {
                field: "input",
                rule: "must hold 1 to 2048 inputs, none of them empty",
            });
        }
        let dimensions = self.dimensions.unwrap_or(DIMENSIONS);
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(Refusal::Invalid {
                field: "dimensions",
                rule: "must be from 1 to 3072",
            });
        }
        let encoding = match self.encoding_format.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(_) => {
                return Err(Refusal::Invalid {
                    field: "encoding_format",
                    rule: "must be \"float\" or \"base64\"",
                });
            }
        };
        let prompt_tokens: usize = items.iter().map(|item| item.tokens).sum();
        let data: Vec<Value> = items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let vector = unit_vector(model, item.hash, dimensions);
                json!({"object": "embedding", "index": index, "embedding": encode(&vector, encoding)})
            })
            .collect();
        let document = json!({
            "object": "list",
            "data": data,
            "model": model,
            "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
        });
        Ok((document, prompt_tokens))
    }
}

fn encode(vector: &[f32], encoding: Encoding) -> Value {
    match encoding {
        Encoding::Float => json!(vector),
        // The OpenAI SDK for Python asks for this unless told otherwise: little-endian 32-bit floats.
        Encoding::Base64 => {
            let bytes: Vec<u8> = vector
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            json!(STANDARD.encode(bytes))
        }
    }
}

/// The vector of length 1 that a model has for an input with that hash.
pub(in super::super) fn unit_vector(model: &str, input: u64, dimensions: usize) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(input ^ hash(model.bytes()));
    let mut vector: Vec<f32> = (0..dimensions).map(|_| random.f32() * 2.0 - 1.0).collect();
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embed(request: Value) -> Result<Value, Refusal> {
        serde_json::from_value::<Request>(request)
            .unwrap()
            .embed("m")
            .map(|(document, _)| document)
    }

    fn floats(value: &Value) -> Vec<f32> {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn both_encodings_carry_the_same_unit_vector() {
        let plain = embed(json!({"input": "hello", "dimensions": 8})).unwrap();
        let packed =
            embed(json!({"input": "hello", "dimensions": 8, "encoding_format": "base64"})).unwrap();
        let vector = floats(&plain["data"][0]["embedding"]);
        let bytes = STANDARD
            .decode(packed["data"][0]["embedding"].as_str().unwrap())
            .unwrap();
        let unpacked: Vec<f32> = bytes
            .chunks_exact(4)
            .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(vector, unpacked);
        assert_eq!(vector.len(), 8);
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5);
    }

    #[test]
    fn equal_texts_get_equal_vectors_and_others_different_ones() {
        let answer = embed(json!({"input": ["a", "b", "a"], "dimensions": 4})).unwrap();
        assert_eq!(
            answer["data"][0]["embedding"],
            answer["data"][2]["embedding"]
        );
        assert_ne!(
            answer["data"][0]["embedding"],
            answer["data"][1]["embedding"]
        );
        assert_eq!(answer["usage"]["prompt_tokens"], 3);
    }

    #[test]
    fn an_input_of_token_numbers_counts_them() {
        let answer = embed(json!({"input": [[1, 2, 3], [4]], "dimensions": 4})).unwrap();
        assert_eq!(answer["usage"]["total_tokens"], 4);
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_field() {
        let refused = |request| match embed(request).unwrap_err() {
            Refusal::Invalid { field, .. } | Refusal::Missing { field } => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(json!({})), "input");
        assert_eq!(refused(json!({"input": []})), "input");
        assert_eq!(refused(json!({"input": ""})), "input");
        assert_eq!(
            refused(json!({"input": "a", "dimensions": 4000})),
            "dimensions"
        );
        assert_eq!(
            refused(json!({"input": "a", "encoding_format": "int8"})),
            "encoding_format"
        );
    }
}
