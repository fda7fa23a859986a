"""Do answers that are held to a schema fit it? The demo model at temperature 1, over 30 schemas.

PYTHONPATH=src python tools/structured_output.py --runs 500
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from chatstream_trio import ChatStream, Settings
from structured import ask_for_all


async def main(model: str | None, runs: int, max_tokens: int) -> int:
    """Ask, print, and give the number of answers that do not fit."""
    settings = Settings(model=model, max_active=8, max_waiting=64)
    async with ChatStream.open(settings) as chat:
        tally = await ask_for_all(chat, range(runs), at_once=16, max_tokens=max_tokens)
    cut = len(tally.cut)
    print(f"{tally.valid} of {runs - cut} that were not cut fit; {cut} of {runs} were cut")
    for name, count in Counter(tally.cut).most_common():
        print(f"  cut: {count} x {name}")
    for name, text in tally.invalid:
        print(f"  does not fit {name}: {text!r}")
    return len(tally.invalid)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--max-tokens", type=int, default=256)
    given = parser.parse_args()
    sys.exit(bool(trio.run(main, given.model, given.runs, given.max_tokens)))
