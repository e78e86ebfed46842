"""What a user of Google's Python client sees. Arguments: the base URL, a right key, the provider's ledger."""

import sys

from google import genai
from google.genai import errors as kinds
from google.genai import types
from ledger import Ledger, refused, run

MODEL = "gemini-2.5-flash"
QUESTION = "Say hello."
TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            parameters=types.Schema(
                type="OBJECT", properties={"city": types.Schema(type="STRING")}, required=["city"]
            ),
        )
    ]
)


def told(usage, entry):
    written = usage.candidates_token_count + (usage.thoughts_token_count or 0)
    assert (usage.prompt_token_count, written) == (entry["prompt_tokens"], entry["completion_tokens"]), entry


def content(client, ledger):
    answer = client.models.generate_content(
        model=MODEL, contents=QUESTION, config=types.GenerateContentConfig(system_instruction="Be kind.")
    )
    assert answer.text and answer.candidates[0].finish_reason == types.FinishReason.STOP, answer
    told(answer.usage_metadata, ledger.only())


def content_streamed(client, ledger):
    chunks = list(client.models.generate_content_stream(model=MODEL, contents=QUESTION))
    text = "".join(chunk.text for chunk in chunks)
    assert text == client.models.generate_content(model=MODEL, contents=QUESTION).text, text
    told(chunks[-1].usage_metadata, ledger.news()[0])


def functions(client, ledger):
    config = types.GenerateContentConfig(tools=[TOOL])
    answer = client.models.generate_content(model=MODEL, contents="call:weather", config=config)
    call = answer.function_calls[0]
    assert (call.name, call.args) == ("weather", {"city": "text"}), answer
    told(answer.usage_metadata, ledger.only())


def counting(client, ledger):
    counted = client.models.count_tokens(model=MODEL, contents=QUESTION)
    answer = client.models.generate_content(model=MODEL, contents=QUESTION)
    assert counted.total_tokens == answer.usage_metadata.prompt_token_count, counted
    ledger.news()


def embeddings(client, ledger):
    answer = client.models.embed_content(
        model="text-embedding-3-small", contents=["a", "b"], config=types.EmbedContentConfig(output_dimensionality=8)
    )
    assert [len(embedding.values) for embedding in answer.embeddings] == [8, 8], answer
    ledger.news()


def models(client, ledger):
    names = [model.name for model in client.models.list()]
    assert f"models/{MODEL}" in names, names
    ledger.news()


def errors(client, ledger):
    def ask(plan):
        return client.models.generate_content(
            model=MODEL,
            contents=QUESTION,
            config=types.GenerateContentConfig(http_options=types.HttpOptions(headers={"x-mock": plan})),
        )

    limited = refused(kinds.ClientError, lambda: ask("status=429"))
    assert (limited.code, limited.status) == (429, "RESOURCE_EXHAUSTED"), limited
    overloaded = refused(kinds.ServerError, lambda: ask("status=503"))
    assert (overloaded.code, overloaded.status) == (503, "UNAVAILABLE"), overloaded
    ledger.news()


def wrong_key(client, ledger):
    stranger = connect(client_url(client), "sk-wrong")
    error = refused(kinds.ClientError, lambda: stranger.models.generate_content(model=MODEL, contents=QUESTION))
    # Google says 400 to a key that it doesn't know, a gateway 401.
    assert error.code in (400, 401), error
    ledger.news()


def client_url(client):
    return client._api_client._http_options.base_url


def connect(url, key):
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, timeout=20_000))


CHECKS = (content, content_streamed, functions, counting, embeddings, models, errors, wrong_key)


def main():
    base_url, key, ledger = sys.argv[1:]
    client = connect(base_url.removesuffix("/v1"), key)
    run(CHECKS, client, Ledger(ledger))


if __name__ == "__main__":
    main()
