"""What a user of Anthropic's Python client sees. Arguments: the base URL, a right key, the provider's ledger."""

import asyncio
import sys

import anthropic
from ledger import Ledger, refused, run

MODEL = "claude-sonnet-4.5"
ASK = {"model": MODEL, "max_tokens": 2000, "messages": [{"role": "user", "content": "Say hello."}]}
TOOL = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def plan(text):
    return {"x-mock": text}


def told(usage, entry):
    assert (usage.input_tokens, usage.output_tokens) == (entry["prompt_tokens"], entry["completion_tokens"]), entry


def messages(client, ledger):
    message = client.messages.create(**ASK, system="Be kind.")
    assert message.stop_reason == "end_turn" and message.content[0].text, message
    told(message.usage, ledger.only())


def messages_streamed(client, ledger):
    with client.messages.stream(**ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text == client.messages.create(**ASK).content[0].text, final
    told(final.usage, ledger.news()[0])


def tools(client, ledger):
    whole = client.messages.create(**ASK, tools=[TOOL], tool_choice={"type": "any"})
    with client.messages.stream(**ASK, tools=[TOOL], tool_choice={"type": "tool", "name": "weather"}) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        assert (message.stop_reason, message.content[0].input) == ("tool_use", {"city": "text"}), message
    told(streamed.usage, ledger.news()[1])


def thinking(client, ledger):
    with client.messages.stream(**ASK, thinking={"type": "enabled", "budget_tokens": 1024}) as stream:
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text"], message
    assert ledger.only()["reasoning_tokens"] > 0


def stop_sequences(client, ledger):
    message = client.messages.create(**ASK, stop_sequences=["hello"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "hello"), message
    ledger.news()


def counting(client, ledger):
    counted = client.messages.count_tokens(model=MODEL, messages=ASK["messages"])
    assert counted.input_tokens == client.messages.create(**ASK).usage.input_tokens, counted
    ledger.news()


def models(client, ledger):
    names = [model.id for model in client.models.list()]
    assert MODEL in names, names
    ledger.news()


def errors(client, ledger):
    def ask(headers):
        return client.messages.create(**ASK, extra_headers=headers)

    refused(anthropic.AuthenticationError, lambda: client.with_options(api_key="sk-wrong").messages.create(**ASK))
    ledger.news()
    limited = refused(anthropic.RateLimitError, lambda: ask(plan("status=429; retry-after=3")))
    assert limited.response.headers["retry-after"] == "3", limited
    overloaded = refused(anthropic.InternalServerError, lambda: ask(plan("status=529")))
    assert overloaded.status_code == 529, overloaded
    refused(anthropic.NotFoundError, lambda: client.messages.create(**{**ASK, "model": "claude-0"}))

    def broken():
        with client.messages.stream(**ASK, extra_headers=plan("error=5")) as stream:
            stream.get_final_message()

    refused(anthropic.APIStatusError, broken)
    statuses = [entry["status"] for entry in ledger.news()]
    assert statuses == [429, 529, 404, 200], statuses


def retries(client, ledger):
    patient = client.with_options(max_retries=2)
    message = patient.messages.create(**{**ASK, "model": f"{MODEL}@fail=2;status=529;retry-after=50ms"})
    assert message.model == MODEL, message
    statuses = [entry["status"] for entry in ledger.news()]
    assert statuses == [529, 529, 200], statuses


def leaves_early(client, ledger):
    async def read_a_little():
        async with anthropic.AsyncAnthropic(base_url=client.base_url, api_key=client.api_key, max_retries=0) as eager:
            async with eager.messages.stream(**ASK, extra_headers=plan("rate=20; tokens=2000")) as stream:
                count = 0
                async for _ in stream.text_stream:
                    count += 1
                    if count == 5:
                        return

    asyncio.run(read_a_little())
    entry = ledger.only()
    assert (entry["ended"], entry["aborted"]) == ("client", True), entry
    assert 4 <= entry["written_tokens"] < entry["completion_tokens"] == 2000, entry


CHECKS = (
    messages, messages_streamed, tools, thinking, stop_sequences, counting, models, errors, retries, leaves_early,
)


def main():
    base_url, key, ledger = sys.argv[1:]
    # The client puts the path's /v1 in front itself.
    client = anthropic.Anthropic(base_url=base_url.removesuffix("/v1"), api_key=key, max_retries=0, timeout=20)
    run(CHECKS, client, Ledger(ledger))


if __name__ == "__main__":
    main()
