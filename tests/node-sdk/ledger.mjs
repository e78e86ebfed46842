// Reads the mock provider's ledger: what it served, next to what a client saw.

import assert from "node:assert/strict";

export class Ledger {
  #last = 0;

  constructor(url) {
    this.url = url;
  }

  // The entries since the last look, once every response has ended.
  async news() {
    const document = await (await fetch(`${this.url}?wait=20&since=${this.#last}`)).json();
    assert.equal(document.open, 0);
    this.#last = document.last;
    return document.entries;
  }
}

export async function run(checks) {
  for (const [name, check] of Object.entries(checks)) {
    await check();
    console.log(`${name}: ok`);
  }
}

export const plan = (text) => ({ headers: { "x-mock": text } });
