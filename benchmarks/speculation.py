"""When does it pay to guess ahead?

Runs the embedded demo model through the real turn loop with and without ``--speculate``, on answers
that repeat what stands in the conversation (a question is asked again) and on answers that do not.
All variants take turns within a round; the figures are medians. The texts must be the same: the
benchmark says so if they are not.

    PYTHONPATH=src:tests/engine python benchmarks/speculation.py --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import time

from drive import run_turns

from chatstream_trio import demo
from chatstream_trio.conversation import Conversation, Message
from chatstream_trio.engine.runner import Runner
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.models import find_model
from chatstream_trio.settings import Settings
from chatstream_trio.text.codec import Codec
from chatstream_trio.torch_runner.load.build import load_runner
from chatstream_trio.torch_runner.load.options import RunnerOptions

QUESTIONS = ("What is a seat?", "What is the waiting room?", "What happens on SIGTERM?")


def conversations(codec: Codec, answer: str, *, repeated: bool) -> list[tuple[int, ...]]:
    """Prompts: each question, or each question for the second time, after its answer."""
    prompts = []
    for question in QUESTIONS:
        ask = Message("user", question)
        before = [ask, Message("assistant", answer)] if repeated else []
        prompts.append(codec.read(Conversation([*before, ask])).tokens)
    return prompts


def fresh_runner() -> Runner:
    """The demo model, with nothing in its memory."""
    return load_runner(
        str(demo.path()), RunnerOptions(model_id="demo", device="cpu", rows=3, threads=2)
    )


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--tokens", type=int, default=60)
    options.add_argument("--guesses", default="0,4,8,16", help="values of --speculate")
    given = options.parse_args()
    codec = find_model(Settings()).load_codec()
    end = fresh_runner().info.eos_token_ids
    answer = (
        "A seat is the right to have your answer computed now. At most eight streams hold a seat by"
        " default, and --max-active changes that number."
    )
    rows = []
    for kind in ("fresh", "repeated"):
        prompts = conversations(codec, answer, repeated=kind == "repeated")
        for count in (1, 3):
            wanted = list(enumerate(prompts))[:count]
            specs = [StreamSpec(n, p, given.tokens, stop_token_ids=end) for n, p in wanted]
            rows.append((f"{kind}, {count} at once", specs))
    print(f"{'':22}{'guesses':>8}{'turns':>7}{'tokens/s':>10}{'ratio':>7}")
    for name, specs in rows:
        lengths = [int(length) for length in given.guesses.split(",")]
        seconds: dict[int, list[float]] = {length: [] for length in lengths}
        turns: dict[int, int] = {}
        texts: dict[int, dict[int, list[int]]] = {}
        for number in range(given.rounds + 1):
            for length in lengths:
                runner = fresh_runner()  # one that remembers nobody's prompt
                began = time.perf_counter()
                loop = run_turns(runner, specs, speculate=length)
                if number:
                    seconds[length].append(time.perf_counter() - began)
                turns[length], texts[length] = loop.turns, loop.tokens
        said = sum(map(len, texts[lengths[0]].values()))
        base = statistics.median(seconds[lengths[0]])
        for length in lengths:
            middle = statistics.median(seconds[length])
            same = "" if texts[length] == texts[lengths[0]] else "  OTHER TEXT"
            rate, ratio = said / middle, base / middle
            print(f"{name:22}{length:8}{turns[length]:7}{rate:10.0f}{ratio:7.2f}{same}")


if __name__ == "__main__":
    main()
