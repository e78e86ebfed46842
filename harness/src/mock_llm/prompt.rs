//! What a request asks of a model, whatever API it came by, and what that costs by the rule of [`super::tokens`].

use serde_json::Value;

use super::tokens;

/// A request to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) model: String,
    pub(super) prompt: Prompt,
    /// The most completion tokens of a choice, thinking among them; at least 1.
    pub(super) limit: Option<usize>,
    /// Texts that end an answer and don't stand in it.
    pub(super) stop: Vec<String>,
    /// Choices to give; at least 1.
    pub(super) choices: usize,
    pub(super) tool_choice: ToolChoice,
    /// Whether the model thinks before it answers.
    pub(super) thinks: bool,
}

/// What a model is given to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prompt {
    /// In the order they are read, system prompts first.
    pub(super) turns: Vec<Turn>,
    pub(super) tools: Vec<Tool>,
    /// A plain text to go on with, as the legacy completions API has it: no message, no opening.
    pub(super) plain: bool,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) role: Role,
    /// All that counts as text, joined.
    pub(super) text: String,
    /// Images, sounds and files.
    pub(super) images: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    System,
    User,
    Assistant,
    /// The result of a tool.
    Tool,
}

impl Role {
    /// The role by the names that the APIs use; an unknown one counts as the user.
    pub(super) fn of(name: &str) -> Self {
        match name {
            "system" | "developer" => Self::System,
            "assistant" | "model" => Self::Assistant,
            "tool" | "function" => Self::Tool,
            _ => Self::User,
        }
    }
}

/// A function that a model may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) description: String,
    /// Its arguments' JSON Schema.
    pub(super) schema: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ToolChoice {
    #[default]
    Auto,
    Never,
    /// One of them, the first.
    Any,
    Named(String),
}

impl Turn {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            text: String::new(),
            images: 0,
        }
    }

    pub(super) fn system(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::new(Role::System)
        }
    }

    fn tokens(&self) -> usize {
        tokens::PER_MESSAGE + tokens::count(self.text.len()) + self.images * tokens::PER_IMAGE
    }
}

impl Tool {
    fn tokens(&self) -> usize {
        let schema = match &self.schema {
            Value::Null => 0,
            schema => schema.to_string().len(),
        };
        tokens::PER_TOOL + tokens::count(self.name.len() + self.description.len() + schema)
    }
}

impl Prompt {
    pub(super) fn tokens(&self) -> usize {
        if self.plain {
            return self
                .turns
                .iter()
                .map(|turn| tokens::count(turn.text.len()))
                .sum();
        }
        self.tool_tokens() + self.turns.iter().map(Turn::tokens).sum::<usize>() + tokens::PER_PROMPT
    }

    fn tool_tokens(&self) -> usize {
        self.tools.iter().map(Tool::tokens).sum()
    }

    /// The openings of the prompt that end where a message does: the bytes that each one adds, and the tokens of all up
    /// to there. The tools stand in front of the first message.
    pub(super) fn openings(&self) -> impl Iterator<Item = (Vec<u8>, usize)> + '_ {
        let tools = self.tools.iter().flat_map(|tool| {
            [
                tool.name.clone().into_bytes(),
                tool.description.clone().into_bytes(),
                tool.schema.to_string().into_bytes(),
            ]
            .concat()
        });
        let mut front: Vec<u8> = tools.collect();
        let mut tokens = self.tool_tokens();
        self.turns.iter().map(move |turn| {
            let mut bytes = std::mem::take(&mut front);
            bytes.push(turn.role as u8);
            bytes.extend_from_slice(turn.text.as_bytes());
            tokens += turn.tokens();
            (bytes, tokens)
        })
    }

    /// The text of the last message of the user.
    pub(super) fn question(&self) -> &str {
        self.turns
            .iter()
            .rev()
            .find(|turn| turn.role == Role::User)
            .map_or("", |turn| turn.text.as_str())
    }

    /// Whether it is the user's turn that the answer follows, and not a tool's result.
    pub(super) fn ends_with_user(&self) -> bool {
        self.turns
            .last()
            .is_some_and(|turn| turn.role == Role::User)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(text: &str, images: usize) -> Turn {
        Turn {
            text: text.to_owned(),
            images,
            ..Turn::new(Role::User)
        }
    }

    #[test]
    fn a_prompt_counts_text_images_messages_tools_and_once_the_opening() {
        let mut prompt = Prompt::default();
        assert_eq!(prompt.tokens(), 3);
        prompt.turns = vec![user("12345", 0)];
        assert_eq!(prompt.tokens(), (3 + 2) + 3);
        prompt.turns.push(user("", 2));
        assert_eq!(prompt.tokens(), (3 + 2) + (3 + 2 * 85) + 3);
        prompt.tools = vec![Tool {
            name: "add".to_owned(),
            description: "Adds".to_owned(),
            schema: json!({"a": 1}),
        }];
        assert_eq!(
            prompt.tokens(),
            (3 + 2) + (3 + 2 * 85) + 3 + (3 + (3 + 4 + 7_usize).div_ceil(4))
        );
        assert_eq!(
            prompt.openings().last().map(|(_, tokens)| tokens + 3),
            Some(prompt.tokens())
        );
    }
}
