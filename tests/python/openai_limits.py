"""What a user of OpenAI's Python client sees of limits. Arguments: the base URLs of a gateway with a wide limit, of one with room for one
request in a few seconds, and of one that ends streams at their limit; the provider's ledger."""

import sys
import time

import openai
from ledger import Ledger, refused, run

MODEL = "gpt-4.1"
MESSAGES = [{"role": "user", "content": "Say hello."}]
# A request that leaves no room for another one in the tight window.
LARGE = {"max_tokens": 100, "extra_headers": {"x-mock": "tokens=100"}}


def ask(client, **options):
    return client.chat.completions.create(model=MODEL, messages=MESSAGES, **options)


def left(client):
    """The tokens that are left beside the reservation of a request that ends up costing nothing."""
    error = refused(openai.InternalServerError, lambda: ask(client, max_tokens=1, extra_headers={"x-mock": "status=503"}))
    return int(error.response.headers["x-ratelimit-remaining-tokens"])


def charged(client, before, right):
    """What was charged since so much was left, as soon as that is right: a settlement may come after the client's last byte."""
    deadline = time.monotonic() + 10
    while True:
        now = before - left(client)
        if right(now) or time.monotonic() > deadline:
            return now
        time.sleep(0.05)


def exhausted(client):
    """Asks until there is no room: a window may end between two requests."""
    for _ in range(20):
        try:
            ask(client, **LARGE)
        except openai.RateLimitError as error:
            return error
    raise AssertionError("20 requests and no RateLimitError")


class Attempts:
    """Notes when a client sends a request, and what it is told to wait after it."""

    def __init__(self):
        self.begun, self.answered, self.statuses, self.waits = [], [], [], []

    def client(self, base_url):
        hooks = {"request": [lambda _: self.begun.append(time.monotonic())], "response": [self.answer]}
        http = openai.DefaultHttpxClient(event_hooks=hooks)
        return openai.OpenAI(base_url=base_url, api_key="none", max_retries=1, timeout=20, http_client=http)

    def answer(self, response):
        self.answered.append(time.monotonic())
        self.statuses.append(response.status_code)
        self.waits.append(int(response.headers.get("retry-after", 0)))


def refusal(wide, tight, cut, ledger):
    error = exhausted(tight)
    assert (error.status_code, error.code, error.type) == (429, "rate_limit_exceeded", "rate_limit_error"), error.body
    assert error.body["message"].startswith("Rate limit 'all' reached: "), error.body
    assert error.response.headers["x-ratelimit-limit-tokens"] == "130", error.response.headers
    assert 1 <= int(error.response.headers["retry-after"]) <= 4, error.response.headers
    statuses = {entry["status"] for entry in ledger.news()}
    assert statuses == {200}, "the provider sees nothing of it"


def retry(wide, tight, cut, ledger):
    attempts = Attempts()
    patient = attempts.client(tight.base_url)
    for _ in range(20):
        first = len(attempts.begun)
        ask(patient, **LARGE)
        if attempts.statuses[first] == 429:
            break
    assert attempts.statuses[first:] == [429, 200], attempts.statuses
    waited = attempts.begun[first + 1] - attempts.answered[first]
    # The client's own first pause is at most half a second.
    assert waited >= attempts.waits[first] >= 1, (waited, attempts.waits)
    ledger.news()


def headers(wide, tight, cut, ledger):
    raw = wide.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    assert raw.headers["x-ratelimit-limit-tokens"] == "1000000", raw.headers
    assert 0 < int(raw.headers["x-ratelimit-remaining-tokens"]) < 1_000_000, raw.headers
    assert raw.headers["x-ratelimit-reset-tokens"].endswith("s"), raw.headers
    assert raw.headers["x-ratelimit-limit-requests"] == "100000", raw.headers
    assert raw.parse().usage.completion_tokens == ledger.only()["completion_tokens"]


def stream_without_usage(wide, tight, cut, ledger):
    before = left(wide)
    ledger.news()
    chunks = list(ask(wide, stream=True))
    assert chunks and all(chunk.usage is None and chunk.choices for chunk in chunks), chunks
    entry = ledger.only()
    assert entry["usage_sent"], "the provider was asked for it"
    used = entry["prompt_tokens"] + entry["completion_tokens"]
    assert charged(wide, before, lambda now: now == used) == used
    ledger.news()


def stream_with_usage(wide, tight, cut, ledger):
    chunks = list(ask(wide, stream=True, stream_options={"include_usage": True}))
    entry = ledger.only()
    assert chunks[-1].usage.completion_tokens == entry["completion_tokens"], chunks[-1]


def cut_stream(wide, tight, cut, ledger):
    before = left(cut)
    ledger.news()
    chunks = list(ask(cut, stream=True, extra_headers={"x-mock": "tokens=400; rate=200"}))
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["length"], reasons
    entry = ledger.only()
    assert len(chunks) < 100 < entry["completion_tokens"] == 400, len(chunks)
    # The client leaves with the last event, and what the provider had written by then is charged: as an estimate, since it told nothing.
    least = entry["prompt_tokens"] + len(chunks) - 1
    assert least <= charged(cut, before, lambda now: now >= least) <= 400
    ledger.news()


def cut_response(wide, tight, cut, ledger):
    plan = {"x-mock": "tokens=400; rate=200"}
    with cut.responses.stream(model=MODEL, input="Say hello.", extra_headers=plan) as stream:
        kinds = [event.type for event in stream]
    assert kinds[-1] == "response.incomplete", kinds[-3:]
    assert len(kinds) < 110, len(kinds)
    ledger.news()


CHECKS = (refusal, retry, headers, stream_without_usage, stream_with_usage, cut_stream, cut_response)


def main():
    *base_urls, ledger = sys.argv[1:]
    clients = [openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=20) for url in base_urls]
    run(CHECKS, *clients, Ledger(ledger))


if __name__ == "__main__":
    main()
