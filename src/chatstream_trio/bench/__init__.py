"""A load generator for any server with OpenAI's streaming chat completions.

It knows nothing of the rest of the package but the errors: what is measured is what comes over
the wire. Names are loaded when they are first used, for the command line's sake.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatstream_trio.bench.client import NoServer
    from chatstream_trio.bench.figures import Spread
    from chatstream_trio.bench.measure import Measurement, run_bench
    from chatstream_trio.bench.options import BenchOptions
    from chatstream_trio.bench.report import BenchReport
    from chatstream_trio.bench.sample import Sample, SampleEnding

__all__ = [
    "BenchOptions",
    "BenchReport",
    "Measurement",
    "NoServer",
    "Sample",
    "SampleEnding",
    "Spread",
    "run_bench",
]

_HOME_OF = {
    "BenchOptions": "options",
    "BenchReport": "report",
    "Measurement": "measure",
    "NoServer": "client",
    "Sample": "sample",
    "SampleEnding": "sample",
    "Spread": "figures",
    "run_bench": "measure",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
