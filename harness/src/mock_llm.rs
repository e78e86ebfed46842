//! A provider of language models in one process, to be afraid of: for the demo, for tests, and for trying a gateway
//! without an account. It speaks three providers' APIs, can break in every way that a provider or a network does, and
//! tells afterwards exactly what it served.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/chat/completions` | OpenAI's chat, whole or as server-sent events (`stream`, `stream_options.include_usage`, `max_tokens`, `max_completion_tokens`, `n`, `stop`, `tools`, `tool_choice`, `logprobs`, `top_logprobs`) |
//! | `POST /v1/completions` | OpenAI's legacy completions, whole or streamed (`prompt` a text, several, or token numbers) |
//! | `POST /v1/responses` | OpenAI's Responses, whole or with its named events (`instructions`, `previous_response_id`, `tools`, `max_output_tokens`, `store`) |
//! | `GET`, `DELETE /v1/responses/{id}` | a response that was stored; the last 1024 are |
//! | `POST /v1/embeddings` | unit vectors (`dimensions`; `encoding_format` `float` or `base64`) |
//! | `POST /v1/images/generations` | the smallest picture there is (`n`) |
//! | `GET /v1/models`, `GET /v1/models/{id}` | the configured models; in the form of Anthropic for a client that sends `anthropic-version`, of Gemini for one that sends a key of its kind or `x-goog-api-client` |
//! | `POST /v1/messages`, `POST /v1/messages/count_tokens` | Anthropic's Messages, whole or streamed (`system`, `tools`, `tool_choice`, `stop_sequences`, `thinking`, `cache_control`) |
//! | `POST /v1beta/models/{model}:generateContent`, `:streamGenerateContent` | Gemini's content, whole, as events (`?alt=sse`) or as one JSON array |
//! | `POST /v1beta/models/{model}:countTokens`, `:embedContent`, `:batchEmbedContents` | its token counts and vectors |
//! | `GET /v1beta/models`, `GET /v1beta/models/{model}` | the configured models in Gemini's form |
//! | the same below `/v1/models` | as below `/v1beta/models`: Google's clients use both |
//! | `GET /health` | 200 |
//! | any method, `/v1/whoami` | the request as it arrived here: method, path, every header. For seeing what a gateway adds and removes |
//! | `GET`, `DELETE /ledger` | what was served to whom |
//!
//! Equal prompts get equal answers and equal vectors, tools are called by a rule, and usage follows another one
//! ([`tokens`]), so that a test knows the truth. With [`Settings::api_keys`], each API wants one of them where its clients put it:
//! OpenAI's in `Authorization: Bearer`, Anthropic's in `x-api-key` (or a bearer token), Gemini's in `x-goog-api-key` or
//! `?key=`. Errors have the form and the status that the API's own provider gives them.
//!
//! What can go wrong, and how one asks for it: [`misbehaviour`].
//!
//! # What is said
//!
//! The text names the provider and repeats the start of the last user message. Choices after the first say which they
//! are. A stop sequence ends the text in front of it, then the token limit cuts what is left.
//!
//! A tool is called when the request demands it (`tool_choice`: that tool, or the first one), and when the last message
//! is the user's and says `call:NAME`, once for each such word that names a tool. A reply that calls has no text.
//! Arguments hold what the tool's schema requires: a string is `"text"`, an integer `1`, a number `1.5`, a boolean
//! `true`, an array empty, an enumeration its first value.
//!
//! # Cached prompt tokens
//!
//! The leading messages that an earlier prompt of the same key to the same model had too count as cached, if they have
//! 1024 tokens or more together, rounded down to a multiple of 128. Anthropic's API caches only for requests that hold
//! `cache_control`.
//!
//! # The ledger
//!
//! `GET /ledger` answers with `entries`, one for each response that has ended, in the order they ended; with `totals` by key and
//! model; with the number of responses that are `open`, and the `last` sequence number. `?since=SEQUENCE` leaves off
//! the entries up to that one (not the totals); `?wait=SECONDS`, at most 60, answers when no response is open any more, which is
//! how a test reads it. `DELETE /ledger` begins anew. The last 100,000 entries are kept; totals count all.
//!
//! | an entry's field | meaning |
//! |---|---|
//! | `sequence` | 1 and up, in the order responses ended |
//! | `request_id` | as the answer's `x-request-id` says it (Anthropic: `request-id`) |
//! | `key` | the first 12 hexadecimal digits of the key's SHA-256; null without a key |
//! | `model`, `api` | whose answer it is; the model is null where the request was refused before it was known |
//! | `status`, `streamed`, `plan` | of the answer that was made, whether or not its head was written |
//! | `prompt_tokens`, `cached_tokens`, `completion_tokens`, `reasoning_tokens` | of the whole answer by the [token rule](tokens); 0 for an error |
//! | `written_tokens`, `written_bytes` | of the completion, of the body: what the system took for the connection before the end |
//! | `usage_sent` | whether the usage of the whole answer was written |
//! | `told_prompt_tokens`, `told_completion_tokens` | what the last usage said that was written, null if none was: Anthropic's streams tell the prompt's first, Gemini's tell all so far in each event |
//! | `ended` | `complete`, `error_event` (in a stream), `reset`, `closed`, `stalled` (by a plan), `client` (it left) |
//! | `aborted` | whether it ended in another way than `complete` |
//!
//! Totals have the sums of these, and count `requests`, `errors` (status 400 and up), `aborted` and `usage_sent`.
//!
//! A response is open from when its request was read whole until its last byte is written or its client was seen to leave; then
//! its entry is final. A client that leaves amid its request has none. A stream's event counts when it was written to its last byte, a whole
//! answer likewise: all its tokens or none. Thinking counts with a stream's first event. What can't be read (half an event, half a document, one that
//! is longer than its Content-Length) is bytes, and no tokens. Over HTTP/2, where the library doesn't say what it wrote when a
//! client resets a stream, what it took for writing counts, within the client's flow control.

mod answer;
mod anthropic;
mod api;
mod fnv;
mod gemini;
mod ledger;
pub mod misbehaviour;
mod openai;
mod prefixes;
mod prompt;
mod provider;
mod refusal;
mod reply;
mod request;
mod script;
mod sse;
pub mod tokens;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::listener::{self, BindError};
use misbehaviour::Fault;
use provider::Provider;

/// What a mock provider is and how fast it answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; port 0 takes a free port.
    pub listen: SocketAddr,
    /// Its name, which stands in every answer, so that one sees which of several providers answered.
    pub name: String,
    /// The models it serves; another one gets 404 as OpenAI gives it.
    pub models: Vec<String>,
    /// The keys it accepts; none: it asks for no key.
    pub api_keys: Vec<String>,
    /// The wait before the first token, or before a whole answer starts to be written.
    pub first_token_delay: Duration,
    /// The pace of the tokens after that; none: at once.
    pub tokens_per_second: Option<NonZeroU32>,
    /// What goes wrong by itself; of several that strike, the first.
    pub faults: Vec<Fault>,
    /// From which all chance grows: the same seed and the same order of requests give the same faults.
    pub seed: u64,
    /// Threads that serve, each with a socket of its own on the same port.
    pub threads: NonZeroUsize,
}

impl Default for Settings {
    fn default() -> Self {
        let models = [
            "gpt-4.1",
            "claude-sonnet-4.5",
            "gemini-2.5-flash",
            "deepseek-v3.2",
            "text-embedding-3-small",
            "text-embedding-3-large",
            "o4-mini",
            "gpt-image-1",
        ];
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            name: "mock-llm".to_owned(),
            models: models.map(str::to_owned).to_vec(),
            api_keys: Vec::new(),
            first_token_delay: Duration::ZERO,
            tokens_per_second: None,
            faults: Vec::new(),
            seed: 0,
            threads: NonZeroUsize::MIN,
        }
    }
}

/// A mock provider that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Occurs when its port can't be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Occurs when the system refuses a thread or an event queue.
    #[error("cannot start the provider's thread")]
    Thread(#[from] io::Error),
}

/// A mock provider that is serving, on threads of its own. Dropping it stops it.
#[derive(Debug)]
pub struct MockLlm {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl MockLlm {
    /// Opens the port and starts to serve.
    ///
    /// # Errors
    /// When the port or a thread can't be had.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let listeners = match settings.threads.get() {
            1 => vec![listener::bind(settings.listen)?],
            threads => listener::bind_shared(settings.listen, threads)?,
        };
        let (stop, stopped) = watch::channel(false);
        let mut serving = Self {
            address: settings.listen,
            stop,
            threads: Vec::new(),
        };
        let name = settings.name.clone();
        let provider = Arc::new(Provider::new(settings));
        for listener in listeners {
            serving.address = listener.local_addr()?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (provider, stopped) = (Arc::clone(&provider), stopped.clone());
            let thread = std::thread::Builder::new()
                .name(name.clone())
                .spawn(move || {
                    let served = wire::serve(listener, provider, stopped);
                    if let Err(error) = LocalSet::new().block_on(&runtime, served) {
                        tracing::error!("the mock provider can't serve: {error}");
                    }
                })?;
            serving.threads.push(thread);
        }
        Ok(serving)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL an OpenAI client takes: `http://127.0.0.1:9001/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

impl Drop for MockLlm {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // A panic there was printed by its thread; there is nobody to hand it to.
            let _ = thread.join();
        }
    }
}
