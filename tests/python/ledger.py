"""Reads the mock provider's ledger: what it served, next to what a client saw."""

import json
import urllib.request


class Ledger:
    def __init__(self, url):
        self.url = url
        self.last = 0

    def news(self):
        """The entries since the last look, once every response has ended."""
        with urllib.request.urlopen(f"{self.url}?wait=20&since={self.last}", timeout=30) as answer:
            document = json.load(answer)
        assert document["open"] == 0, document
        self.last = document["last"]
        return document["entries"]

    def only(self):
        """The one entry since the last look."""
        entries = self.news()
        assert len(entries) == 1, entries
        return entries[0]


def run(checks, *arguments):
    for check in checks:
        check(*arguments)
        print(f"{check.__name__}: ok", flush=True)


def refused(kind, call):
    """The error of that class that a call raises."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")
