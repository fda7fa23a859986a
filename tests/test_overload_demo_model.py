"""The overload suite on the real thing: the embedded demo model, five times overbooked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from attrs import evolve

pytest.importorskip("torch")
pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.overload_suite.bench import SHORT, Bench
from benchmarks.overload_suite.scenarios import SCENARIOS

OPTIONS = evolve(SHORT, model=None, seconds=3.0, factors=(5,), tokens=24)


@pytest.mark.parametrize("name", ["load", "storm"])
async def test_overbooked(name: str) -> None:
    """Every text is what an idle server says, and nothing is left behind."""
    bench = Bench(OPTIONS)
    await SCENARIOS[name](bench)
    (result,) = bench.results
    assert result.problems == []
    assert result.figures is not None
    assert result.figures.texts.right == result.figures.endings["served"] > 0
    assert result.figures.texts.bad == result.figures.texts.unknown == 0
