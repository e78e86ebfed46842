use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use clap::Args;
use tollgate_harness::mock_llm::misbehaviour::Fault;
use tollgate_harness::mock_llm::{MockLlm, Settings};

use super::signals::Signals;
use super::{Failure, Outcome, print};

const EXAMPLES: &str = "\
Examples:
  tollgate mock-llm
  tollgate mock-llm --listen 127.0.0.1:9002 --name provider-b --api-key upstream-secret
  tollgate mock-llm --first-token-delay-ms 200 --tokens-per-second 50
  tollgate mock-llm --misbehave 'p=0.01; reset=body' --misbehave 'p=0.05; status=529; retry-after=1' --seed 7
  curl -s localhost:9001/v1/models -H 'x-mock: status=503'
  curl -s 'localhost:9001/ledger?wait=5&since=0'

It serves
  OpenAI     POST /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings,
             /v1/images/generations; GET and DELETE /v1/responses/ID; GET /v1/models
  Anthropic  POST /v1/messages, /v1/messages/count_tokens; GET /v1/models with anthropic-version
  Gemini     POST /v1beta/models/MODEL:generateContent, :streamGenerateContent, :countTokens,
             :embedContent, :batchEmbedContents; GET /v1beta/models
  itself     GET /health; GET and DELETE /ledger, what it served to whom; /v1/whoami, the
             request as it arrived
over HTTP/1.1, and HTTP/2 with prior knowledge.

The ledger tells for each response its tokens, how many of them were written before a client or a
fault ended it, and whether usage was told. ?since=SEQUENCE leaves off older entries, ?wait=SECONDS
waits until no response is open.

Usage: one token for each 4 bytes of text, rounded up; in a prompt 3 more for each message, 85
for each image and 3 for the prompt. Tools are called when the request demands it, or when the
last message says call:NAME.

A plan says what goes wrong: NAME=VALUE; ... A request brings one in the header x-mock or behind
the model's name (gpt-4.1@stall=2); --misbehave takes the same with p=PROBABILITY and
model=MODEL. WHEN is before, headers, body or a number of events.
  time     delay=200ms rate=50 jitter=20ms seed=7 slow-headers=5ms
  errors   status=429 retry-after=3|date:3|250ms fail=2 id=NAME error=5
  ends     reset=WHEN close=WHEN stall=WHEN
  events   malformed=5 usage=missing|twice done=missing extra eol=lf|crlf|cr comments multiline
  body     write=3 gzip=accepted|always tokens=100000 bytes=50MB content-type=TYPE
           length=long|short chunk=bad trailers";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Address to listen on; port 0 takes a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// Name of the provider, which stands in its answers
    #[arg(long, default_value = "mock-llm")]
    name: String,
    /// Models it serves, separated by commas
    #[arg(long, value_name = "MODEL,...", value_delimiter = ',')]
    models: Vec<String>,
    /// Key it accepts (repeatable); without one it asks for none
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// Wait before the first token
    #[arg(long, value_name = "MS", default_value_t = 0)]
    first_token_delay_ms: u64,
    /// Pace of the tokens after the first [default: at once]
    #[arg(long, value_name = "N")]
    tokens_per_second: Option<NonZeroU32>,
    /// What goes wrong by itself (repeatable); of several that strike, the first
    #[arg(long, value_name = "PLAN")]
    misbehave: Vec<Fault>,
    /// Seed of all chance: the same seed and order of requests give the same faults
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Threads that serve [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<Outcome, Failure> {
        let mut stop = Signals::listen().map_err(Failure::run)?;
        let defaults = Settings::default();
        let settings = Settings {
            listen: self.listen,
            name: self.name,
            models: if self.models.is_empty() {
                defaults.models
            } else {
                self.models
            },
            api_keys: self.api_key,
            first_token_delay: Duration::from_millis(self.first_token_delay_ms),
            tokens_per_second: self.tokens_per_second,
            faults: self.misbehave,
            seed: self.seed,
            threads: self
                .threads
                .or_else(|| std::thread::available_parallelism().ok())
                .unwrap_or(NonZeroUsize::MIN),
        };
        let models = settings.models.join(", ");
        let provider = MockLlm::start(settings).map_err(Failure::run)?;
        print::line(format_args!(
            "Serving {} (models: {models})",
            provider.base_url()
        ))?;
        stop.wait_for_stop();
        Ok(Outcome::Fine)
    }
}
