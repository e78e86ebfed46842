# Tollgate's tasks. ./justw RECIPE does the same where just itself is missing.

set shell := ["bash", "-euo", "pipefail", "-c"]

golden := "tests/golden"
wasm_bindgen := "0.2.130"
cargo_deny := "0.20.2"

# list the recipes
default:
    @{{ just_executable() }} --list --unsorted

# see requests of an OpenAI client pass through the filters, with mock providers
demo *arguments: wasm
    cargo run --quiet --package tollgate-harness -- demo {{ arguments }}

# start Redis and Webdis on this machine, for limits that several gateways share; Ctrl-C stops both
redis *ports: redis-packages
    @deploy/redis/start {{ ports }}

[private]
redis-packages:
    @.ci/need redis-server "Redis, which keeps limits that gateways share," command -v redis-server
    @.ci/need webdis "Webdis, Redis' HTTP front," command -v webdis

# run every test, from unit tests to a real Envoy and real clients
test: setup wasm
    @JUST={{ just_executable() }} .ci/test

# what a build server runs: lints, dependency rules, tests
ci: lint deny test

# get all that the tests need: toolchain, Envoy, client SDKs, Node, Redis and Webdis
setup: toolchain redis-packages
    @.ci/venv
    @.cache/venv/bin/pip install --quiet --requirement tests/python/requirements.txt
    @.ci/need nodejs "Node.js, which runs the WebAssembly unit tests," command -v node
    @.ci/need npm "npm, which installs OpenAI's client for Node," command -v npm
    @npm ci --prefix tests/node-sdk --ignore-scripts --no-audit --no-fund --loglevel=error

# get the Rust toolchain and its WebAssembly targets
toolchain:
    @.ci/toolchain

# build the shipped modules and the test guests, and describe the shipped ones
wasm: toolchain
    cargo build --quiet --profile wasm --target wasm32-wasip1 --package tollgate-key-auth --package tollgate-header-transform --package tollgate-token-rate-limit --package tollgate-calls --package tollgate-noop --package tollgate-probe --package tollgate-quirks
    cargo run --quiet --package tollgate-harness -- meta key-auth > target/wasm32-wasip1/wasm/tollgate_key_auth.meta.json
    cargo run --quiet --package tollgate-harness -- meta header-transform > target/wasm32-wasip1/wasm/tollgate_header_transform.meta.json
    cargo run --quiet --package tollgate-harness -- meta token-rate-limit > target/wasm32-wasip1/wasm/tollgate_token_rate_limit.meta.json
    @ls -l target/wasm32-wasip1/wasm/*.wasm

# check format, lints and documentation, natively and for WebAssembly
lint: toolchain
    cargo fmt --all --check
    cargo clippy --quiet --workspace --all-targets -- --deny warnings
    cargo clippy --quiet --target wasm32-wasip1 --package tollgate-kit --package tollgate-llm --package tollgate-key-auth --package tollgate-header-transform --package tollgate-token-rate-limit --package tollgate-calls --package tollgate-noop --package tollgate-probe --package tollgate-quirks -- --deny warnings
    RUSTDOCFLAGS="--deny warnings" cargo doc --quiet --workspace --no-deps --document-private-items

# check the licences and sources of the dependencies, and known vulnerabilities where the database can be reached
deny: toolchain
    #!/usr/bin/env bash
    set -euo pipefail
    deny=$(.ci/cargo-tool cargo-deny {{ cargo_deny }} cargo-deny)
    "$deny" --log-level error check bans licenses sources
    if timeout 60 "$deny" --log-level off fetch db; then
        "$deny" --log-level error check --disable-fetch advisories
    else
        echo "the advisory database can't be reached: vulnerabilities are NOT checked" >&2
    fi

# run the pure logic as WebAssembly under Node
node: toolchain
    #!/usr/bin/env bash
    set -euo pipefail
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$(.ci/cargo-tool wasm-bindgen-cli {{ wasm_bindgen }} wasm-bindgen-test-runner)
    cargo test --target wasm32-unknown-unknown --package tollgate-node-tests

# run the golden cases in simulation, with more arguments for `tollgate conformance`: just conformance --profile kong
[positional-arguments]
conformance *arguments: wasm
    cargo run --quiet --package tollgate-harness -- conformance --deviations tests/deviations.json "$@" {{ golden }}

# fuzz one of template, form, multipart, json, llm_request, llm_stream; needs cargo-fuzz and a nightly compiler
fuzz target seconds="60":
    cargo +nightly fuzz run {{ target }} -- -max_total_time={{ seconds }}

# print what a request costs in fuel and host calls, and what a module costs in size and memory
fuel: wasm
    cargo test --quiet --package tollgate-tests --test cost -- --nocapture

# print what token-rate-limit costs as clients and rules grow
fuel-growth: wasm
    cargo run --quiet --package tollgate-tests --bin limits-growth

# accept the present cost as the golden one
fuel-accept: wasm
    TOLLGATE_ACCEPT_COST=1 cargo test --quiet --package tollgate-tests --test cost

# measure the CPU that requests, chats and streams cost on a real Envoy: without filters, with one that does nothing, with key-auth and token-rate-limit
bench-envoy: setup wasm
    cargo run --quiet --package tollgate-tests --bin envoy-cpu

# measure requests a second and their latency through `serve` and through a real Envoy, without filters and with key-auth
bench-proxy: setup wasm
    cargo build --quiet --release --package tollgate-harness --package tollgate-tests --bin tollgate --bin proxy-load
    target/release/proxy-load compare

# measure the memory of `serve` with so many open streams through key-auth
bench-streams count="10000": wasm
    cargo build --quiet --release --package tollgate-harness --package tollgate-tests --bin tollgate --bin proxy-load
    target/release/proxy-load hold --count {{ count }}

# measure what a limit in Redis costs: decisions a second through Webdis, memory of counters, requests through an Envoy beside a local limit
bench-redis: setup wasm
    cargo build --quiet --release --package tollgate-tests --bin proxy-load
    target/release/proxy-load webdis
    target/release/proxy-load limits

# measure the time between events of streams on a real Envoy, with token-rate-limit and without
bench-gap: setup wasm
    cargo run --quiet --package tollgate-tests --bin sse-gap

# measure how far a token limit is passed, and how much of it is left, under 64 clients at once: here, in Redis, with sync_rate
bench-overshoot: setup wasm
    cargo run --quiet --package tollgate-tests --bin overshoot

# measure how many schedules a second the simulator tries
bench-races: wasm
    cargo run --quiet --package tollgate-tests --bin sim-rate

# all figures
bench: fuel fuel-growth bench-envoy bench-gap bench-overshoot bench-proxy bench-streams bench-redis bench-races

# delete what was built and downloaded
clean:
    cargo clean
    rm -rf .cache
