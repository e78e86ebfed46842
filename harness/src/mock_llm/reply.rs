//! What the model says: a rule instead of a model, so that equal requests get equal answers and a test knows them.
//!
//! - The text names the provider and repeats the start of the last user message. Choices after the first say which they
//!   are.
//! - Tools are called when the request demands it (`tool_choice`: that tool, or the first one), and when tools are offered and the last
//!   message is the user's and says `call:NAME`, once for each such word that names a tool. A reply that calls has no text.
//!   Arguments hold what the tool's schema requires: a string is `"text"`, an integer `1`, a number `1.5`, a boolean `true`, an
//!   array empty, an enumeration its first value.
//! - A stop sequence ends the text in front of it, then the token limit cuts what is left; thinking comes off the limit first.

use serde_json::{Map, Value, json};

use super::prompt::{Ask, Tool, ToolChoice};
use super::tokens;

/// Characters of the last message that an answer repeats: enough to recognise it, little enough for a terminal.
const REPEATED: usize = 200;

/// Levels of a schema that arguments are made for.
const DEEPEST: usize = 8;

/// How long a text is wanted instead of the usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Tokens(usize),
    Bytes(usize),
}

/// Why a choice ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    /// At this stop sequence.
    StopSequence(String),
    Length,
    ToolCalls,
}

/// A tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    /// JSON, as text: a token limit may cut it.
    pub(super) arguments: String,
}

/// One answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
    pub(super) finish: Finish,
}

/// All answers to a request and what they cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) choices: Vec<Choice>,
    pub(super) usage: Usage,
}

/// Tokens of an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// All of the prompt, cached or not.
    pub(super) prompt: usize,
    /// Those of the prompt that were read from the cache.
    pub(super) cached: usize,
    /// Those of the prompt that this request wrote to the cache.
    pub(super) cache_written: usize,
    /// All of the completion, thinking among them.
    pub(super) completion: usize,
    /// Those of the completion that went into thinking.
    pub(super) reasoning: usize,
}

/// The part of a choice that one event of a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delta<'a> {
    Text(&'a str),
    /// A call begins.
    Call {
        call: usize,
        name: &'a str,
    },
    Arguments {
        call: usize,
        piece: &'a str,
    },
}

impl Call {
    fn head_tokens(&self) -> usize {
        tokens::PER_CALL + tokens::count(self.name.len())
    }

    /// The tokens of the whole call.
    pub(super) fn tokens(&self) -> usize {
        self.head_tokens() + tokens::count(self.arguments.len())
    }
}

impl Delta<'_> {
    /// The completion tokens that it carries.
    pub(super) fn tokens(&self) -> usize {
        match self {
            Self::Text(_) | Self::Arguments { .. } => 1,
            Self::Call { name, .. } => tokens::PER_CALL + tokens::count(name.len()),
        }
    }
}

impl Choice {
    fn tokens(&self) -> usize {
        tokens::count(self.text.len()) + self.calls.iter().map(Call::tokens).sum::<usize>()
    }

    /// The parts of a stream of this choice.
    pub(super) fn len(&self) -> usize {
        let calls = self.calls.iter();
        tokens::count(self.text.len())
            + calls
                .map(|call| 1 + tokens::count(call.arguments.len()))
                .sum::<usize>()
    }

    /// The part with that index; none past the end.
    pub(super) fn delta(&self, index: usize) -> Option<Delta<'_>> {
        if let Some(piece) = tokens::piece(&self.text, index) {
            return Some(Delta::Text(piece));
        }
        let mut index = index - tokens::count(self.text.len());
        for (number, call) in self.calls.iter().enumerate() {
            if index == 0 {
                return Some(Delta::Call {
                    call: number,
                    name: &call.name,
                });
            }
            index -= 1;
            if let Some(piece) = tokens::piece(&call.arguments, index) {
                return Some(Delta::Arguments {
                    call: number,
                    piece,
                });
            }
            index -= tokens::count(call.arguments.len());
        }
        None
    }
}

impl Reply {
    /// Where each part of a stream of all choices stands: (choice, index in it), the choices taking turns.
    pub(super) fn order(&self) -> impl Iterator<Item = (usize, usize)> + Send + use<> {
        let lengths: Vec<usize> = self.choices.iter().map(Choice::len).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        (0..longest).flat_map(move |index| {
            let lengths = lengths.clone();
            (0..lengths.len())
                .filter(move |choice| lengths.get(*choice).is_some_and(|length| index < *length))
                .map(move |choice| (choice, index))
        })
    }

    pub(super) fn delta(&self, choice: usize, index: usize) -> Option<Delta<'_>> {
        self.choices.get(choice)?.delta(index)
    }

    /// The parts of the longest choice.
    pub(super) fn longest(&self) -> usize {
        self.choices.iter().map(Choice::len).max().unwrap_or(0)
    }
}

impl Ask {
    /// The answer of the provider with that name.
    pub(super) fn reply(&self, provider: &str, size: Option<Size>) -> Reply {
        let prompt = self.prompt.tokens();
        let wanted = if self.thinks {
            tokens::reasoning(prompt)
        } else {
            0
        };
        let reasoning = self.limit.map_or(wanted, |limit| limit.min(wanted));
        let limit = self.limit.map(|limit| limit - reasoning);
        let choices: Vec<Choice> = (0..self.choices)
            .map(|number| self.choice(provider, number, size, limit))
            .collect();
        let visible: usize = choices.iter().map(Choice::tokens).sum();
        let reasoning = reasoning * self.choices;
        Reply {
            usage: Usage {
                prompt,
                completion: visible + reasoning,
                reasoning,
                ..Usage::default()
            },
            choices,
        }
    }

    fn choice(
        &self,
        provider: &str,
        number: usize,
        size: Option<Size>,
        limit: Option<usize>,
    ) -> Choice {
        let calls = self.calls();
        if !calls.is_empty() {
            return cut_calls(calls, limit);
        }
        let mut text = sized(self.sentence(provider, number), size);
        let mut finish = Finish::Stop;
        let stop = self
            .stop
            .iter()
            .filter(|stop| !stop.is_empty())
            .filter_map(|stop| text.find(stop.as_str()).map(|at| (at, stop)))
            .min_by_key(|(at, _)| *at);
        if let Some((at, stop)) = stop {
            text.truncate(at);
            finish = Finish::StopSequence(stop.clone());
        }
        if let Some(limit) = limit
            && let (cut, true) = tokens::truncate(&text, limit)
        {
            text.truncate(cut.len());
            finish = Finish::Length;
        }
        Choice {
            text,
            calls: Vec::new(),
            finish,
        }
    }

    fn sentence(&self, provider: &str, number: usize) -> String {
        let asked: String = self.prompt.question().chars().take(REPEATED).collect();
        let which = match number {
            0 => String::new(),
            _ => format!(" This is choice {}.", number + 1),
        };
        format!(
            "This is {provider}. You said: \"{asked}\" The same question always gets this same answer.{which}"
        )
    }

    fn calls(&self) -> Vec<Call> {
        let tools = &self.prompt.tools;
        let named = |name: &str| tools.iter().find(|tool| tool.name == name);
        let chosen: Vec<&Tool> = match &self.tool_choice {
            ToolChoice::Never => Vec::new(),
            ToolChoice::Named(name) => named(name).into_iter().collect(),
            choice => {
                let asked: Vec<&Tool> = if self.prompt.ends_with_user() {
                    let words = self.prompt.question().split_whitespace();
                    words
                        .filter_map(|word| word.strip_prefix("call:"))
                        .filter_map(named)
                        .collect()
                } else {
                    Vec::new()
                };
                if asked.is_empty() && *choice == ToolChoice::Any {
                    tools.first().into_iter().collect()
                } else {
                    asked
                }
            }
        };
        chosen
            .into_iter()
            .map(|tool| Call {
                name: tool.name.clone(),
                arguments: sample(&tool.schema, DEEPEST).to_string(),
            })
            .collect()
    }
}

fn cut_calls(calls: Vec<Call>, limit: Option<usize>) -> Choice {
    let mut left = limit.unwrap_or(usize::MAX);
    let mut kept = Vec::new();
    let mut finish = Finish::ToolCalls;
    for mut call in calls {
        let head = call.head_tokens();
        if left < head {
            finish = Finish::Length;
            break;
        }
        left -= head;
        let (arguments, cut) = tokens::truncate(&call.arguments, left);
        let length = arguments.len();
        call.arguments.truncate(length);
        left -= tokens::count(length);
        kept.push(call);
        if cut {
            finish = Finish::Length;
            break;
        }
    }
    Choice {
        text: String::new(),
        calls: kept,
        finish,
    }
}

/// The text again and again until it is as long as wanted, with a token or byte to spare for none.
fn sized(sentence: String, size: Option<Size>) -> String {
    let bytes = match size {
        None => return sentence,
        Some(Size::Tokens(tokens)) => tokens.saturating_mul(tokens::BYTES),
        Some(Size::Bytes(bytes)) => bytes,
    };
    let mut text = String::with_capacity(bytes);
    let line = format!("{sentence} ");
    while text.len() + line.len() <= bytes {
        text.push_str(&line);
    }
    let rest = line.floor_char_boundary(bytes - text.len());
    text.push_str(line.get(..rest).unwrap_or_default());
    // Where the cut would have split a character.
    text.extend(std::iter::repeat_n('.', bytes - text.len()));
    text
}

/// A value that a JSON Schema allows, as far as its types go.
fn sample(schema: &Value, depth: usize) -> Value {
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first(),
        kind => kind,
    };
    // Gemini writes its types in capitals.
    let kind = kind.and_then(Value::as_str).unwrap_or("object");
    match kind.to_ascii_lowercase().as_str() {
        "string" => json!("text"),
        "integer" => json!(1),
        "number" => json!(1.5),
        "boolean" => json!(true),
        "array" => json!([]),
        "null" => Value::Null,
        _ => {
            let required = schema.get("required").and_then(Value::as_array);
            let names = required.into_iter().flatten().filter_map(Value::as_str);
            let fields = names.map(|name| {
                let field = schema.get("properties").and_then(|fields| fields.get(name));
                let value = match field {
                    Some(field) if depth > 0 => sample(field, depth - 1),
                    _ => Value::Null,
                };
                (name.to_owned(), value)
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::prompt::{Prompt, Role, Turn};
    use super::*;

    fn ask(text: &str) -> Ask {
        let mut turn = Turn::new(Role::User);
        turn.text = text.to_owned();
        Ask {
            model: "m".to_owned(),
            prompt: Prompt {
                turns: vec![turn],
                tools: ["weather", "add"].map(tool).to_vec(),
                plain: false,
            },
            limit: None,
            stop: Vec::new(),
            choices: 1,
            tool_choice: ToolChoice::Auto,
            thinks: false,
        }
    }

    fn tool(name: &str) -> Tool {
        Tool {
            name: name.to_owned(),
            description: String::new(),
            schema: json!({
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "unit": {"enum": ["C", "F"]},
                    "note": {"type": "string"},
                },
                "required": ["city", "days", "unit"],
            }),
        }
    }

    fn names(reply: &Reply) -> Vec<&str> {
        let calls = reply.choices[0].calls.iter();
        calls.map(|call| call.name.as_str()).collect()
    }

    #[test]
    fn tools_are_called_when_asked_for_by_name_or_demanded() {
        assert_eq!(names(&ask("hello").reply("p", None)), [""; 0]);
        let both = ask("please call:add and call:weather now, not call:nothing").reply("p", None);
        assert_eq!(names(&both), ["add", "weather"]);
        assert_eq!(both.choices[0].finish, Finish::ToolCalls);
        assert_eq!(
            both.choices[0].calls[0].arguments,
            r#"{"city":"text","days":1,"unit":"C"}"#
        );
        let mut demanded = ask("hello");
        demanded.tool_choice = ToolChoice::Any;
        assert_eq!(names(&demanded.reply("p", None)), ["weather"]);
        demanded.tool_choice = ToolChoice::Named("add".to_owned());
        assert_eq!(names(&demanded.reply("p", None)), ["add"]);
        demanded.prompt.turns[0].text = "call:weather".to_owned();
        demanded.tool_choice = ToolChoice::Never;
        assert_eq!(names(&demanded.reply("p", None)), [""; 0]);
    }

    #[test]
    fn a_tools_result_ends_the_calls() {
        let mut answered = ask("call:add");
        answered.prompt.turns.push(Turn::new(Role::Tool));
        assert_eq!(names(&answered.reply("p", None)), [""; 0]);
    }

    #[test]
    fn parts_of_a_stream_carry_all_tokens_and_join_to_the_whole() {
        let asks = [ask("hi"), ask("call:add call:weather")];
        for mut ask in asks {
            ask.choices = 2;
            let reply = ask.reply("p", None);
            let parts: Vec<_> = reply
                .order()
                .map(|(choice, index)| (choice, reply.delta(choice, index).unwrap()))
                .collect();
            let carried: usize = parts.iter().map(|(_, delta)| delta.tokens()).sum();
            assert_eq!(carried, reply.usage.completion);
            for (number, choice) in reply.choices.iter().enumerate() {
                let own = parts.iter().filter(|(of, _)| *of == number);
                let mut text = String::new();
                let mut calls: Vec<Call> = Vec::new();
                for (_, delta) in own {
                    match delta {
                        Delta::Text(piece) => text.push_str(piece),
                        Delta::Call { name, .. } => calls.push(Call {
                            name: (*name).to_owned(),
                            arguments: String::new(),
                        }),
                        Delta::Arguments { call, piece } => calls[*call].arguments.push_str(piece),
                    }
                }
                assert_eq!((&text, &calls), (&choice.text, &choice.calls));
            }
        }
    }

    #[test]
    fn a_stop_sequence_comes_before_the_limit_and_thinking_off_it() {
        let mut asked = ask("hello");
        asked.stop = vec!["You".to_owned(), "said".to_owned()];
        let stopped = asked.reply("p", None);
        assert_eq!(stopped.choices[0].text, "This is p. ");
        assert_eq!(
            stopped.choices[0].finish,
            Finish::StopSequence("You".to_owned())
        );
        asked.limit = Some(2);
        let cut = asked.reply("p", None);
        assert_eq!(
            (cut.choices[0].text.as_str(), &cut.choices[0].finish),
            ("This is ", &Finish::Length)
        );
        asked.thinks = true;
        let all_thought = asked.reply("p", None);
        assert_eq!(all_thought.choices[0].text, "");
        assert_eq!(
            (all_thought.usage.reasoning, all_thought.usage.completion),
            (2, 2)
        );
    }

    #[test]
    fn a_limit_cuts_a_call_where_it_falls() {
        let mut asked = ask("call:add call:add");
        for limit in 1..30 {
            asked.limit = Some(limit);
            let reply = asked.reply("p", None);
            assert!(reply.usage.completion <= limit, "{limit}: {reply:?}");
        }
    }

    #[test]
    fn a_size_that_is_wanted_is_met_exactly() {
        for bytes in [0, 1, 3, 50, 1000] {
            let reply = ask("日本語").reply("p", Some(Size::Bytes(bytes)));
            assert_eq!(reply.choices[0].text.len(), bytes);
        }
        let reply = ask("日本語").reply("p", Some(Size::Tokens(777)));
        assert_eq!(reply.usage.completion, 777);
    }
}
