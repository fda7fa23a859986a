"""What a test may need of the machine."""

from __future__ import annotations

import os
import shutil

import pytest

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler on this machine"
)


def let_compiled_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a model compiled, whatever is faster with models as tiny as the tests'."""
    from chatstream_trio.torch_runner.load.layers import pace

    won = [pace.Pace(1, 1), pace.Pace(1.5, 1.5)]
    monkeypatch.setattr(pace, "measure", lambda *_: won)
