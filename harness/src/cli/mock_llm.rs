use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::Args;
use tollgate_harness::mock_llm::{MockLlm, Settings};

use super::signals::Signals;
use super::{Failure, Outcome, print};

const EXAMPLES: &str = "\
Examples:
  tollgate mock-llm
  tollgate mock-llm --listen 127.0.0.1:9002 --name provider-b --api-key upstream-secret
  tollgate mock-llm --first-token-delay-ms 200 --tokens-per-second 50

It serves POST /v1/chat/completions, POST /v1/embeddings, GET /v1/models, GET /health, and
/v1/whoami, which answers with the request as it arrived. Usage: one token for each 4 bytes of
text, rounded up; 3 more for each message of a prompt and 3 for the prompt.";

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
