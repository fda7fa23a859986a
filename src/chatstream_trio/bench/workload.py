"""What is asked, and when: prompts and arrival times, the same again for the same seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from chatstream_trio.bench.options import BenchOptions
from chatstream_trio.errors import SettingsError

_WORDS = """
the of and a to in is you that it he was for on are as with his they at be this have from or one had
by word but not what all were we when your can said there use an each which she do how their if will
up other about out many then them these so some her would make like him into time has look two more
write go see number no way could people my than first water
"""
WORDS = _WORDS.split()
"""Short and frequent: in most vocabularies each is a token of its own."""


def arrivals(rate: float, rng: random.Random) -> Iterator[float]:
    """Arrival times, in seconds from the beginning, of a Poisson process; without end."""
    at = 0.0
    while True:
        at += rng.expovariate(rate)
        yield at


def prompt_maker(options: BenchOptions) -> Callable[[int], str]:
    """Makes the prompt of request ``n``.

    Raises:
        SettingsError: The file of prompts cannot be read, or is empty.
    """
    if options.prompts is None:
        return lambda n: made_up(options.prompt_tokens, random.Random(f"{options.seed} {n}"))
    prompts = _lines(options.prompts)
    return lambda n: prompts[n % len(prompts)]


def made_up(words: int, rng: random.Random) -> str:
    """So many random words: nothing that a prefix cache could have met."""
    return " ".join(rng.choices(WORDS, k=words))


def body_of(options: BenchOptions, model: str | None, prompt: str) -> dict[str, Any]:
    """The body of a request. What was not asked for is not in it: some servers are strict."""
    body: dict[str, Any] = {} if model is None else {"model": model}
    body["messages"] = [{"role": "user", "content": prompt}]
    body |= {"max_tokens": options.max_tokens, "stream": True}
    if options.include_usage:
        body["stream_options"] = {"include_usage": True}
    if options.temperature is not None:
        body["temperature"] = options.temperature
    if options.ignore_eos:
        body["ignore_eos"] = True
    return body


def _lines(path: Path) -> Sequence[str]:
    try:
        lines = path.read_text("utf-8").split("\n")  # and at no other separator
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"prompts: cannot read {path}: {why}", param="prompts") from None
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise SettingsError(f"prompts: {path} has no line in it", param="prompts")
    return prompts
