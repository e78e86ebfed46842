"""What a user of OpenAI's Python client sees behind the gateway. Arguments: the base URL and a right key."""

import sys

import openai

MODEL = "gpt-4.1"
MESSAGES = [{"role": "user", "content": "Say hello."}]


def chat(client):
    completion = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert completion.choices[0].message.content, completion
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens, completion


def chat_streamed(client):
    stream = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert text == whole.choices[0].message.content, (text, whole)
    assert chunks[-1].usage.total_tokens > 0, chunks[-1]


def embeddings(client):
    response = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert len(response.data) == 2 and len(response.data[0].embedding) > 0, response


def models(client):
    names = [model.id for model in client.models.list()]
    assert MODEL in names, names


def wrong_key(client):
    for key in ("sk-wrong", "sk-ada-012345678", "\u00e9"):
        try:
            client.with_options(api_key=key).models.list()
        except openai.AuthenticationError as error:
            assert error.status_code == 401, error
        except UnicodeEncodeError:
            assert key == "\u00e9", "the client itself refuses only what no header can hold"
        else:
            raise AssertionError(f"{key!r} was let in")


def wrong_key_streamed(client):
    try:
        client.with_options(api_key="sk-wrong").chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    except openai.AuthenticationError as error:
        assert error.status_code == 401, error
    else:
        raise AssertionError("let in")


def main():
    base_url, key = sys.argv[1:]
    client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=20)
    for check in (chat, chat_streamed, embeddings, models, wrong_key, wrong_key_streamed):
        check(client)
        print(f"{check.__name__}: ok")


if __name__ == "__main__":
    main()
