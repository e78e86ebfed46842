// What a user of OpenAI's client for Node sees. Arguments: the base URL, a right key, the provider's ledger.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { Ledger, plan, run } from "./ledger.mjs";

const MODEL = "gpt-4.1";
const MESSAGES = [{ role: "user", content: "Say hello." }];
const WEATHER = {
  name: "weather",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

const [baseURL, apiKey, ledgerUrl] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20_000 });

const ledger = new Ledger(ledgerUrl);

await run({
  async chat() {
    const completion = await client.chat.completions.create({ model: MODEL, messages: MESSAGES });
    const [entry] = await ledger.news();
    assert.equal(completion.usage.completion_tokens, entry.completion_tokens);
    assert.equal(completion.usage.prompt_tokens, entry.prompt_tokens);
  },

  async chatStreamed() {
    const stream = client.chat.completions.stream({
      model: MODEL,
      messages: MESSAGES,
      stream_options: { include_usage: true },
    });
    const text = await stream.finalContent();
    const usage = await stream.totalUsage();
    const [entry] = await ledger.news();
    assert.ok(text.includes("Say hello."));
    assert.equal(usage.total_tokens, entry.prompt_tokens + entry.completion_tokens);
  },

  async tools() {
    const tools = [{ type: "function", function: WEATHER }];
    const messages = [{ role: "user", content: "call:weather" }];
    const stream = client.chat.completions.stream({ model: MODEL, messages, tools });
    const { message, finish_reason } = (await stream.finalChatCompletion()).choices[0];
    assert.equal(finish_reason, "tool_calls");
    assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { city: "text" });
    await ledger.news();
  },

  async responses() {
    const whole = await client.responses.create({ model: MODEL, input: "Say hello." });
    const final = await client.responses.stream({ model: MODEL, input: "Say hello." }).finalResponse();
    assert.equal(final.output_text, whole.output_text);
    assert.equal((await client.responses.retrieve(whole.id)).id, whole.id);
    await ledger.news();
  },

  async embeddings() {
    const answer = await client.embeddings.create({ model: "text-embedding-3-small", input: ["a", "b"] });
    assert.equal(answer.data[1].embedding.length, 1536);
    await ledger.news();
  },

  async errors() {
    const ask = (options) => client.chat.completions.create({ model: MODEL, messages: MESSAGES }, options);
    await assert.rejects(ask(plan("status=429; retry-after=3")), OpenAI.RateLimitError);
    await assert.rejects(ask(plan("status=500")), OpenAI.InternalServerError);
    await assert.rejects(ask(plan("reset=before")), OpenAI.APIError);
    const stranger = new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
    await ledger.news();
  },

  async retries() {
    const told = plan("fail=2; id=node; status=429; retry-after=50ms");
    await client.chat.completions.create({ model: MODEL, messages: MESSAGES }, { ...told, maxRetries: 2 });
    assert.deepEqual((await ledger.news()).map((entry) => entry.status), [429, 429, 200]);
  },

  async leavesEarly() {
    const stream = await client.chat.completions.create(
      { model: MODEL, messages: MESSAGES, stream: true },
      plan("rate=20; tokens=2000"),
    );
    let events = 0;
    for await (const _ of stream) {
      if (++events === 5) break;
    }
    const [entry] = await ledger.news();
    assert.equal(entry.ended, "client");
    assert.ok(entry.written_tokens >= 4 && entry.written_tokens < entry.completion_tokens);
  },
});
