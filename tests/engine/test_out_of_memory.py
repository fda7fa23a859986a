"""A real lack of memory, caused by one long prompt, ends that stream alone (law 8)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

PROGRAM = """
import json, resource, sys, time

import torch
from making import make_runner
from tiny_models import tiny

from chatstream_trio.engine.streams import Ending, StreamSpec
from chatstream_trio.engine.messages import StartStream
from chatstream_trio.engine.worker import work

LONG = 3000


def told(limit, *prompts):
    # gemma2 has soft caps, so its scores [heads, prompt, prompt] are really allocated
    model = tiny("gemma2", max_position_embeddings=4096, sliding_window=4096)
    runner = make_runner(model, model_id="m", rows=3, max_model_len=4000, threads=1)
    outcomes = []
    loop = work(runner, prefill_chunk=LONG, hand_over=outcomes.append, clock=time.monotonic)
    next(loop)
    commands = [StartStream(StreamSpec(n, p, 12)) for n, p in enumerate(prompts)]
    loop.send(commands[:2])
    loop.send(())
    if limit:
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20,) * 2)
    loop.send(commands[2:])
    for _ in range(12):
        loop.send(())
    texts, faults = {}, {}
    for outcome in outcomes:
        for stream in outcome.streams:
            texts.setdefault(stream.number, []).extend(stream.tokens)
            if stream.finished is Ending.FAULT:
                faults[stream.number] = stream.fault
    return texts, faults


short = [(1, 2, 3), (9, 8, 7, 6)]
alone, _ = told(False, *short)
texts, faults = told(True, *short, tuple(n % 90 for n in range(LONG)))
print(json.dumps([alone, texts, faults]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit of address space")
def test_a_long_prompt_that_finds_no_memory_ends_alone() -> None:
    """Law 8: torch's own allocation fails in the shared forward pass; the others say the same."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, cwd=HERE
    )
    assert done.returncode == 0, done.stderr
    alone, texts, faults = json.loads(done.stdout.splitlines()[-1])
    assert list(faults) == ["2"]
    assert "allocate" in faults["2"]
    assert {number: texts[number] for number in alone} == alone
    assert [len(said) for said in alone.values()] == [12, 12]
