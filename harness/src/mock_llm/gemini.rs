//! Gemini's APIs: `generateContent`, `streamGenerateContent` (events with `alt=sse`, else one JSON array), `countTokens`,
//! `embedContent`, `batchEmbedContents`, and the form of its models.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Content as Body, Event, Form, Told};
use super::api::Api;
use super::fnv;
use super::openai::chat::Identity;
use super::openai::embeddings::unit_vector;
use super::prompt::{Ask, Prompt, Role, Tool, ToolChoice, Turn};
use super::refusal::Refusal;
use super::reply::{Choice, Delta, Finish, Reply, Usage};
use super::tokens;

/// The vector's length when none is asked for, as Gemini's model has it.
const DIMENSIONS: usize = 3072;

/// A request for content, as far as the provider reads it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    contents: Option<Vec<Content>>,
    #[serde(alias = "system_instruction")]
    system_instruction: Option<Content>,
    #[serde(default, alias = "generation_config")]
    generation_config: GenerationConfig,
    tools: Option<Vec<RawTool>>,
    #[serde(alias = "tool_config")]
    tool_config: Option<ToolConfig>,
}

#[derive(Debug, Deserialize)]
struct Content {
    role: Option<String>,
    #[serde(default)]
    parts: Vec<Part>,
}

/// A part of any kind: its fields say what it is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    text: Option<String>,
    function_call: Option<FunctionCall>,
    function_response: Option<FunctionResponse>,
}

#[derive(Debug, Deserialize)]
struct FunctionCall {
    #[serde(default)]
    name: String,
    #[serde(default)]
    args: Value,
}

#[derive(Debug, Deserialize)]
struct FunctionResponse {
    #[serde(default)]
    response: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig {
    candidate_count: Option<usize>,
    max_output_tokens: Option<usize>,
    stop_sequences: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTool {
    #[serde(default, alias = "function_declarations")]
    function_declarations: Vec<FunctionDeclaration>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FunctionDeclaration {
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
    parameters_json_schema: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig {
    function_calling_config: Option<FunctionCallingConfig>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FunctionCallingConfig {
    mode: Option<String>,
    allowed_function_names: Option<Vec<String>>,
}

/// `countTokens` takes the contents, or a whole request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CountRequest {
    generate_content_request: Option<Request>,
    #[serde(flatten)]
    bare: Request,
}

/// One input to embed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EmbedRequest {
    content: Option<Content>,
    #[serde(alias = "output_dimensionality")]
    output_dimensionality: Option<usize>,
}

/// Several inputs to embed.
#[derive(Debug, Deserialize)]
pub(super) struct BatchEmbedRequest {
    requests: Option<Vec<EmbedRequest>>,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Whole,
    Streamed(Form),
}

fn turn(content: &Content, role: Role) -> Turn {
    let mut turn = Turn::new(role);
    for part in &content.parts {
        match part {
            Part {
                text: Some(text), ..
            } => turn.text.push_str(text),
            Part {
                function_call: Some(call),
                ..
            } => {
                turn.text.push_str(&call.name);
                turn.text.push_str(&call.args.to_string());
            }
            Part {
                function_response: Some(result),
                ..
            } => {
                turn.role = Role::Tool;
                turn.text.push_str(&result.response.to_string());
            }
            _ => turn.images += 1,
        }
    }
    turn
}

impl Request {
    fn prompt(&self) -> Result<Prompt, Refusal> {
        let contents = self
            .contents
            .as_deref()
            .ok_or(Refusal::Missing { field: "contents" })?;
        if contents.is_empty() {
            return Err(Refusal::Invalid {
                field: "contents",
                rule: "must hold at least one content",
            });
        }
        let system = self.system_instruction.iter();
        let contents = contents.iter().map(|content| {
            let role = Role::of(content.role.as_deref().unwrap_or("user"));
            turn(content, role)
        });
        let declared = self
            .tools
            .iter()
            .flatten()
            .flat_map(|tool| &tool.function_declarations);
        let tools = declared.map(|tool| Tool {
            name: tool.name.clone(),
            description: tool.description.clone().unwrap_or_default(),
            schema: tool
                .parameters
                .clone()
                .or_else(|| tool.parameters_json_schema.clone())
                .unwrap_or(Value::Null),
        });
        Ok(Prompt {
            turns: system
                .map(|content| turn(content, Role::System))
                .chain(contents)
                .collect(),
            tools: tools.collect(),
            plain: false,
        })
    }

    pub(super) fn read(self, model: String) -> Result<Ask, Refusal> {
        let prompt = self.prompt()?;
        let config = self.generation_config;
        if config.max_output_tokens == Some(0) {
            return Err(Refusal::Invalid {
                field: "generationConfig.maxOutputTokens",
                rule: "must be at least 1",
            });
        }
        let choices = config.candidate_count.unwrap_or(1);
        if !(1..=8).contains(&choices) {
            return Err(Refusal::Invalid {
                field: "generationConfig.candidateCount",
                rule: "must be from 1 to 8",
            });
        }
        Ok(Ask {
            thinks: tokens::thinks(&model),
            model,
            limit: config.max_output_tokens,
            stop: config.stop_sequences.unwrap_or_default(),
            choices,
            tool_choice: self
                .tool_config
                .and_then(|config| config.function_calling_config)
                .map_or(ToolChoice::Auto, FunctionCallingConfig::choice),
            prompt,
        })
    }
}

impl FunctionCallingConfig {
    fn choice(self) -> ToolChoice {
        match self.mode.as_deref() {
            Some("NONE") => ToolChoice::Never,
            Some("ANY") => {
                let allowed = self.allowed_function_names.into_iter().flatten().next();
                allowed.map_or(ToolChoice::Any, ToolChoice::Named)
            }
            _ => ToolChoice::Auto,
        }
    }
}

impl CountRequest {
    pub(super) fn answer(self) -> Result<Answer, Refusal> {
        let request = self.generate_content_request.unwrap_or(self.bare);
        let tokens = request.prompt()?.tokens();
        let document = json!({
            "totalTokens": tokens,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}],
        });
        Ok(Answer::whole(Api::GeminiTokens, document))
    }
}

impl EmbedRequest {
    /// The vector's object and the tokens of the input.
    fn embed(&self, model: &str) -> Result<(Value, usize), Refusal> {
        let content = self
            .content
            .as_ref()
            .ok_or(Refusal::Missing { field: "content" })?;
        let text = turn(content, Role::User).text;
        let dimensions = self.output_dimensionality.unwrap_or(DIMENSIONS);
        if !(1..=DIMENSIONS).contains(&dimensions) {
            return Err(Refusal::Invalid {
                field: "outputDimensionality",
                rule: "must be from 1 to 3072",
            });
        }
        let vector = unit_vector(model, fnv::hash(text.bytes()), dimensions);
        Ok((json!({"values": vector}), tokens::count(text.len())))
    }

    pub(super) fn answer(&self, model: &str) -> Result<Answer, Refusal> {
        let (vector, tokens) = self.embed(model)?;
        Ok(embedded(json!({"embedding": vector}), tokens))
    }
}

impl BatchEmbedRequest {
    pub(super) fn answer(&self, model: &str) -> Result<Answer, Refusal> {
        let requests = self
            .requests
            .as_deref()
            .ok_or(Refusal::Missing { field: "requests" })?;
        let mut vectors = Vec::new();
        let mut tokens = 0;
        for request in requests {
            let (vector, cost) = request.embed(model)?;
            vectors.push(vector);
            tokens += cost;
        }
        Ok(embedded(json!({"embeddings": vectors}), tokens))
    }
}

fn embedded(mut document: Value, tokens: usize) -> Answer {
    document["usageMetadata"] = json!({"promptTokenCount": tokens, "totalTokenCount": tokens});
    let mut answer = Answer::whole(Api::EmbedContent, document);
    answer.usage.prompt = tokens;
    answer
}

/// A model in Gemini's form.
pub(super) fn model(id: &str) -> Value {
    json!({
        "name": format!("models/{id}"),
        "version": "001",
        "displayName": id,
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens", "embedContent"],
    })
}

fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) | Finish::ToolCalls => "STOP",
        Finish::Length => "MAX_TOKENS",
    }
}

/// Thinking stands beside the candidates' tokens here, not among them.
fn usage(usage: &Usage, written: usize) -> Value {
    let mut told = json!({
        "promptTokenCount": usage.prompt,
        "candidatesTokenCount": written,
        "totalTokenCount": usage.prompt + written + usage.reasoning,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.prompt}],
    });
    if usage.reasoning > 0 {
        told["thoughtsTokenCount"] = json!(usage.reasoning);
    }
    if usage.cached > 0 {
        told["cachedContentTokenCount"] = json!(usage.cached);
    }
    told
}

fn frame(identity: &Identity, candidates: Vec<Value>, usage: Value) -> Value {
    json!({
        "candidates": candidates,
        "usageMetadata": usage,
        "modelVersion": identity.model,
        "responseId": identity.id,
    })
}

fn call_part(name: &str, arguments: &str) -> Value {
    // A call that the limit cut has no whole arguments to show.
    let args: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
    json!({"functionCall": {"name": name, "args": args}})
}

fn candidate(index: usize, parts: Vec<Value>, finish: Option<&Finish>) -> Value {
    let mut candidate = json!({"index": index, "content": {"role": "model", "parts": parts}});
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish_reason(finish));
    }
    candidate
}

pub(super) fn answer(identity: Identity, style: Style, reply: Reply) -> Answer {
    let total = reply.usage;
    let content = match style {
        Style::Whole => {
            let written = total.completion - total.reasoning;
            let candidates = reply.choices.iter().enumerate().map(|(index, choice)| {
                let text = (!choice.text.is_empty()).then(|| json!({"text": choice.text}));
                let calls = choice.calls.iter();
                let calls = calls.map(|call| call_part(&call.name, &call.arguments));
                candidate(
                    index,
                    text.into_iter().chain(calls).collect(),
                    Some(&choice.finish),
                )
            });
            Body::Whole {
                document: frame(&identity, candidates.collect(), usage(&total, written)),
                at: reply.longest().saturating_sub(1),
            }
        }
        Style::Streamed(form) => Body::Events {
            form,
            events: events(identity, Arc::new(reply)),
        },
    };
    Answer {
        usage: total,
        content,
        ..Answer::whole(Api::GenerateContent, Value::Null)
    }
}

fn told(usage: &Usage, written: usize, is_last: bool) -> Told {
    if is_last {
        Told::Also
    } else {
        Told::SoFar {
            completion: written + usage.reasoning,
        }
    }
}

/// One event a token of text; a call comes whole in one event, as Gemini sends it. Each event tells the tokens up to
/// it, the last of each choice its reason to end.
fn events(identity: Identity, reply: Arc<Reply>) -> Box<dyn Iterator<Item = Event> + Send> {
    let total = reply.usage;
    let last = reply.longest().saturating_sub(1);
    // A choice without parts, all of whose limit went into thinking, still has to end.
    let mut empty: Vec<Event> = Vec::new();
    for (index, choice) in reply.choices.iter().enumerate() {
        if choice.len() == 0 {
            let candidates = vec![candidate(index, Vec::new(), Some(&choice.finish))];
            let data = frame(&identity, candidates, usage(&total, 0));
            let is_last = reply.longest() == 0 && index + 1 == reply.choices.len();
            empty.push(Event::new(None, last, data).telling(told(&total, 0, is_last)));
        }
    }
    let mut written = 0;
    let order = reply.order();
    let middle = order.filter_map(move |(number, index)| {
        let choice: &Choice = reply.choices.get(number)?;
        let part = choice.delta(index)?;
        written += part.tokens();
        // What comes of a call counts where the call is written: behind its last argument.
        let ends_call = !matches!(choice.delta(index + 1), Some(Delta::Arguments { .. }));
        let (content, tokens) = match part {
            Delta::Text(piece) => (json!({"text": piece}), 1),
            Delta::Call { call, .. } | Delta::Arguments { call, .. } if ends_call => {
                let call = choice.calls.get(call)?;
                (call_part(&call.name, &call.arguments), call.tokens())
            }
            Delta::Call { .. } | Delta::Arguments { .. } => return None,
        };
        let ends = index + 1 == choice.len();
        let candidates = vec![candidate(
            number,
            vec![content],
            ends.then_some(&choice.finish),
        )];
        let event = Event::new(
            None,
            index,
            frame(&identity, candidates, usage(&total, written)),
        );
        // Each part has tokens, so that only behind the last of all choices none are left.
        let is_last = written + total.reasoning == total.completion;
        Some(
            event
                .carrying(tokens)
                .telling(told(&total, written, is_last)),
        )
    });
    Box::new(empty.into_iter().chain(middle))
}
