// What a user of OpenAI's client for Node sees of limits. Arguments: the base URLs of a gateway with a wide limit, of one with room for
// one request in a few seconds, and of one that ends streams at their limit; the provider's ledger.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { Ledger, plan, run } from "./ledger.mjs";

const MODEL = "gpt-4.1";
const MESSAGES = [{ role: "user", content: "Say hello." }];
// A request that leaves no room for another one in the tight window.
const LARGE = [{ max_tokens: 100 }, plan("tokens=100")];

const [wideURL, tightURL, cutURL, ledgerUrl] = process.argv.slice(2);
const ledger = new Ledger(ledgerUrl);
const [wide, tight, cut] = [wideURL, tightURL, cutURL].map(
  (baseURL) => new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 20_000 }),
);

const ask = (client, more, options) =>
  client.chat.completions.create({ model: MODEL, messages: MESSAGES, ...more }, options);

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

// The tokens that are left beside the reservation of a request that ends up costing nothing.
async function left(client) {
  const error = await ask(client, { max_tokens: 1 }, plan("status=503")).then(
    () => assert.fail("no error"),
    (error) => error,
  );
  assert.ok(error instanceof OpenAI.InternalServerError);
  return Number(error.headers.get("x-ratelimit-remaining-tokens"));
}

// What was charged since so much was left, as soon as that is right: a settlement may come after the client's last byte.
async function charged(client, before, right) {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const now = before - (await left(client));
    if (right(now) || performance.now() > deadline) return now;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

await run({
  async refusal() {
    let error;
    // A window may end between two requests.
    for (let tries = 0; !error && tries < 20; tries++) {
      await ask(tight, ...LARGE).catch((refused) => (error = refused));
    }
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.deepEqual([error.status, error.code, error.type], [429, "rate_limit_exceeded", "rate_limit_error"]);
    assert.match(error.error.message, /^Rate limit 'all' reached: /);
    assert.equal(error.headers.get("x-ratelimit-limit-tokens"), "130");
    assert.ok((await ledger.news()).every((entry) => entry.status === 200), "the provider sees nothing of it");
  },

  async retry() {
    const attempts = [];
    const noting = async (url, init) => {
      const begun = performance.now();
      const response = await fetch(url, init);
      const wait = Number(response.headers.get("retry-after"));
      attempts.push({ begun, answered: performance.now(), status: response.status, wait });
      return response;
    };
    const patient = new OpenAI({ baseURL: tightURL, apiKey: "none", maxRetries: 1, timeout: 20_000, fetch: noting });
    for (let tries = 0; attempts.at(-2)?.status !== 429 && tries < 20; tries++) {
      await ask(patient, ...LARGE);
    }
    const [refused, passed] = attempts.slice(-2);
    assert.deepEqual([refused.status, passed.status], [429, 200]);
    const waited = (passed.begun - refused.answered) / 1000;
    // The client's own first pause is at most half a second. Node's timers may be a millisecond early.
    assert.ok(refused.wait >= 1 && waited >= refused.wait - 0.002, `${waited} s of ${refused.wait} s`);
    await ledger.news();
  },

  async headers() {
    const { data, response } = await ask(wide).withResponse();
    assert.equal(response.headers.get("x-ratelimit-limit-tokens"), "1000000");
    assert.equal(response.headers.get("x-ratelimit-limit-requests"), "100000");
    const remaining = Number(response.headers.get("x-ratelimit-remaining-tokens"));
    assert.ok(remaining > 0 && remaining < 1_000_000);
    const [entry] = await ledger.news();
    assert.equal(data.usage.completion_tokens, entry.completion_tokens);
  },

  async streamWithoutUsage() {
    const before = await left(wide);
    await ledger.news();
    const chunks = await all(await ask(wide, { stream: true }));
    assert.ok(chunks.length > 0 && chunks.every((chunk) => !chunk.usage && chunk.choices.length > 0));
    const [entry] = await ledger.news();
    assert.ok(entry.usage_sent, "the provider was asked for it");
    const used = entry.prompt_tokens + entry.completion_tokens;
    assert.equal(await charged(wide, before, (now) => now === used), used);
    await ledger.news();
  },

  async streamWithUsage() {
    const chunks = await all(await ask(wide, { stream: true, stream_options: { include_usage: true } }));
    const [entry] = await ledger.news();
    assert.equal(chunks.at(-1).usage.completion_tokens, entry.completion_tokens);
  },

  async cutStream() {
    const stream = cut.chat.completions.stream({ model: MODEL, messages: MESSAGES }, plan("tokens=400; rate=200"));
    const { choices } = await stream.finalChatCompletion();
    assert.equal(choices[0].finish_reason, "length");
    const [entry] = await ledger.news();
    assert.equal(entry.completion_tokens, 400);
    assert.ok(choices[0].message.content.split(" ").length < 100);
  },
});
