"""What does a long prompt cost: the one who asks, and the others?

Through the real turn loop, on the shape of SmolLM2-135M with random weights:

- a second turn in a long conversation, with and without what is still in the KV memory;
- a long prompt that arrives beside seven running streams: the longest turn meanwhile, against a
  turn that reads a chunk of the same prompt alone;
- resident memory after load, against the size of the weights and of the KV pool.

    PYTHONPATH=src python benchmarks/newcomers.py --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from benchmarks.batching import smollm_shape

from chatstream_trio.engine.runner import Runner
from chatstream_trio.engine.scheduler import Scheduler
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.torch_runner.load.build import make_runner
from chatstream_trio.torch_runner.load.options import RunnerOptions

CHUNK = 256
CONVERSATION, NEWS, LONG, RUNNING = 1500, 20, 2000, 7


def prompt(length: int, seed: int) -> tuple[int, ...]:
    """Tokens that no other seed has in this order."""
    return tuple((7 * at + 1009 * seed) % 49152 for at in range(length))


class Loop:
    """The turn loop; starts are numbered over all of its life."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.scheduler, self.count = runner, Scheduler.of(runner.info, CHUNK), 0

    def start(self, tokens: tuple[int, ...], most: int) -> int:
        """A stream begins with the next turn."""
        self.count += 1
        self.scheduler.start(StreamSpec(self.count, tokens, most))
        return self.count

    def turn(self) -> tuple[float, set[int]]:
        """Run one: how many seconds it took, and which streams were given tokens."""
        began = time.perf_counter()
        turn = self.scheduler.plan()
        assert turn is not None
        outcomes = self.scheduler.settle(turn, self.runner.launch(turn)())
        spoke = {outcome.number for outcome in outcomes if outcome.tokens}
        return time.perf_counter() - began, spoke

    def until_first_token(self, number: int) -> tuple[float, float]:
        """All seconds until the stream says something, and those of the longest turn."""
        seconds = []
        while True:
            took, spoke = self.turn()
            seconds.append(took)
            if number in spoke:
                return sum(seconds), max(seconds)

    def finish(self) -> None:
        """End what runs."""
        for number in range(1, self.count + 1):
            self.scheduler.cancel(number)


def second_turn(loop: Loop, round: int) -> dict[str, float]:
    """Seconds to the first token of a second turn: after its first turn, and out of nowhere."""
    first = prompt(CONVERSATION, 3 * round)
    loop.until_first_token(loop.start(first, 1))
    kept, _ = loop.until_first_token(loop.start((*first, *prompt(NEWS, 3 * round + 1)), 1))
    strange = prompt(CONVERSATION + NEWS, 3 * round + 2)
    whole, _ = loop.until_first_token(loop.start(strange, 1))
    return {"second turn, still in memory": kept, "second turn, read anew": whole}


def beside_others(loop: Loop, round: int) -> dict[str, float]:
    """Seconds of the longest turn while a long prompt is read: alone, and beside others."""
    seed = 1000 + 20 * round
    _, alone = loop.until_first_token(loop.start(prompt(LONG, seed), 1))
    for number in range(RUNNING):
        loop.until_first_token(loop.start(prompt(16, seed + 1 + number), 500))
    plain = statistics.median(loop.turn()[0] for _ in range(10))
    _, longest = loop.until_first_token(loop.start(prompt(LONG, seed + 10), 1))
    loop.finish()
    return {
        "longest turn, the long prompt alone": alone,
        f"turn of {RUNNING} streams": plain,
        f"longest turn, beside {RUNNING} streams": longest,
    }


def resident() -> float:
    """MB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    given = options.parse_args()
    model = smollm_shape(torch.bfloat16)
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6
    runner = make_runner(
        model, RunnerOptions(model_id="bench", rows=8, max_model_len=2304, threads=given.threads)
    )
    print("; ".join(runner.info.notes))
    print(f"resident after load: {resident():.0f} MB; the weights have {weights:.0f} MB")
    loop = Loop(runner)
    seconds: dict[str, list[float]] = {}
    works: tuple[Callable[[Loop, int], dict[str, float]], ...] = (second_turn, beside_others)
    for round in range(given.rounds + 1):
        for work in works:
            for name, took in work(loop, round).items():
                if round:  # the first round warms up
                    seconds.setdefault(name, []).append(took)
    for name, all_seconds in seconds.items():
        ordered = [f"{1e3 * s:.0f}" for s in sorted(all_seconds)]
        print(f"{name:40}{1e3 * statistics.median(all_seconds):8.0f} ms   ({', '.join(ordered)})")


if __name__ == "__main__":
    main()
