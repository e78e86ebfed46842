"""What a user of OpenAI's Python client sees. Arguments: the base URL, a right key, the provider's ledger."""

import asyncio
import sys
import time

import openai
from ledger import Ledger, refused, run

MODEL = "gpt-4.1"
MESSAGES = [{"role": "user", "content": "Say hello."}]
TOOL = {
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
}
TOOLS = [{"type": "function", "function": TOOL}]


def plan(text):
    return {"x-mock": text}


def told(usage, entry):
    assert (usage.prompt_tokens, usage.completion_tokens) == (entry["prompt_tokens"], entry["completion_tokens"]), entry


def chat(client, ledger):
    completion = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert completion.choices[0].message.content, completion
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens, completion
    told(completion.usage, ledger.only())


def chat_streamed(client, ledger):
    stream = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert text == whole.choices[0].message.content, (text, whole)
    streamed, again = ledger.news()
    told(chunks[-1].usage, streamed)
    told(whole.usage, again)


def several_choices(client, ledger):
    completion = client.chat.completions.create(model=MODEL, messages=MESSAGES, n=3, logprobs=True, top_logprobs=2)
    assert len({choice.message.content for choice in completion.choices}) == 3, completion
    for choice in completion.choices:
        assert "".join(token.token for token in choice.logprobs.content) == choice.message.content, choice
    told(completion.usage, ledger.only())


def reasoning(client, ledger):
    completion = client.chat.completions.create(model="o4-mini", messages=MESSAGES)
    thought = completion.usage.completion_tokens_details.reasoning_tokens
    assert thought == ledger.only()["reasoning_tokens"] > 0, completion


def tools(client, ledger):
    completion = client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=TOOLS, tool_choice="required")
    call = completion.choices[0].message.tool_calls[0]
    assert completion.choices[0].finish_reason == "tool_calls", completion
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"text","days":1}'), call
    answered = MESSAGES + [
        completion.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    final = client.chat.completions.create(model=MODEL, messages=answered, tools=TOOLS)
    assert final.choices[0].finish_reason == "stop", final
    ledger.news()


def tools_streamed(client, ledger):
    with client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": "call:weather"}], tools=TOOLS
    ) as stream:
        completion = stream.get_final_completion()
    call = completion.choices[0].message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"text","days":1}'), call
    ledger.news()


def legacy(client, ledger):
    whole = client.completions.create(model=MODEL, prompt="Once", logprobs=1)
    chunks = list(client.completions.create(model=MODEL, prompt="Once", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text, chunks
    told(whole.usage, ledger.news()[0])


def responses(client, ledger):
    whole = client.responses.create(model=MODEL, input="Say hello.", instructions="Be kind.")
    with client.responses.stream(model=MODEL, input="Say hello.", instructions="Be kind.") as stream:
        final = stream.get_final_response()
    assert whole.output_text == final.output_text != "", (whole, final)
    assert client.responses.retrieve(whole.id).output_text == whole.output_text
    follows = client.responses.create(model=MODEL, input="And?", previous_response_id=whole.id)
    assert follows.usage.input_tokens > whole.usage.input_tokens, follows
    tool = {"type": "function", **TOOL}
    with client.responses.stream(model=MODEL, input="call:weather", tools=[tool]) as stream:
        call = stream.get_final_response().output[0]
    assert (call.type, call.name, call.arguments) == ("function_call", "weather", '{"city":"text","days":1}'), call
    entry = ledger.news()[0]
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (entry["prompt_tokens"], entry["completion_tokens"])


def embeddings(client, ledger):
    response = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert len(response.data) == 2 and len(response.data[0].embedding) == 1536, response
    assert response.usage.prompt_tokens == ledger.only()["prompt_tokens"] == 2, response


def images(client, ledger):
    made = client.images.generate(model="gpt-image-1", prompt="a cat", n=2)
    assert len(made.data) == 2 and made.data[0].b64_json, made
    assert made.usage.output_tokens == ledger.only()["completion_tokens"], made


def models(client, ledger):
    names = [model.id for model in client.models.list()]
    assert MODEL in names, names
    assert client.models.retrieve(MODEL).id == MODEL
    ledger.news()


def wrong_key(client, ledger):
    for key in ("sk-wrong", "sk-ada-012345678", "\u00e9"):
        try:
            client.with_options(api_key=key).models.list()
        except openai.AuthenticationError as error:
            assert error.status_code == 401, error
        except UnicodeEncodeError:
            assert key == "\u00e9", "the client itself refuses only what no header can hold"
        else:
            raise AssertionError(f"{key!r} was let in")
    ledger.news()


def wrong_key_streamed(client, ledger):
    stranger = client.with_options(api_key="sk-wrong").chat.completions
    error = refused(openai.AuthenticationError, lambda: stranger.create(model=MODEL, messages=MESSAGES, stream=True))
    assert error.status_code == 401, error
    ledger.news()


def errors(client, ledger):
    def ask(headers, **options):
        return client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_headers=headers, **options)

    limited = refused(openai.RateLimitError, lambda: ask(plan("status=429; retry-after=3")))
    assert (limited.code, limited.response.headers["retry-after"]) == ("rate_limit_exceeded", "3"), limited.body
    refused(openai.InternalServerError, lambda: ask(plan("status=503")))
    refused(openai.BadRequestError, lambda: ask({}, top_logprobs=2))
    refused(openai.NotFoundError, lambda: client.chat.completions.create(model="gpt-0", messages=MESSAGES))
    broken = refused(openai.APIError, lambda: list(ask(plan("error=3"), stream=True)))
    assert not isinstance(broken, openai.APIStatusError), broken
    statuses = [entry["status"] for entry in ledger.news()]
    assert statuses == [429, 503, 400, 404, 200], statuses


def retries(client, ledger):
    patient = client.with_options(max_retries=3)
    begin = time.monotonic()
    patient.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        extra_headers=plan(f"fail=2; id=retries-{begin}; status=429; retry-after=1"),
    )
    # The client's own pause is shorter than that.
    assert time.monotonic() - begin >= 2, "Retry-After was not honoured"
    statuses = [entry["status"] for entry in ledger.news()]
    assert statuses == [429, 429, 200], statuses


def leaves_early(client, ledger):
    async def read_a_little():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key=client.api_key, max_retries=0) as eager:
            stream = await eager.chat.completions.create(
                model=MODEL, messages=MESSAGES, stream=True, extra_headers=plan("rate=20; tokens=2000")
            )
            async with stream:
                texts = []
                async for chunk in stream:
                    texts.append(chunk.choices[0].delta.content)
                    if len(texts) == 5:
                        return

    asyncio.run(read_a_little())
    entry = ledger.only()
    assert (entry["ended"], entry["aborted"]) == ("client", True), entry
    assert 4 <= entry["written_tokens"] < entry["completion_tokens"] == 2000, entry


CHECKS = (
    chat, chat_streamed, several_choices, reasoning, tools, tools_streamed, legacy, responses, embeddings, images, models,
    wrong_key, wrong_key_streamed, errors, retries, leaves_early,
)


def main():
    base_url, key, ledger = sys.argv[1:]
    client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=20)
    run(CHECKS, client, Ledger(ledger))


if __name__ == "__main__":
    main()
