"""What is asked of a runner is a plain value."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from attrs.exceptions import FrozenInstanceError

from chatstream_trio.engine.budget import Budget
from chatstream_trio.torch_runner.load.options import RunnerOptions
from chatstream_trio.torch_runner.shape import Shape


def test_options_travel() -> None:
    """They survive pickle and msgpack, equal, and nobody changes them on the way."""
    asked = RunnerOptions(
        model_id="m",
        rows=3,
        kv_memory=Budget.parse("2GiB"),
        compiled=Path("/some/folder"),
        shape=Shape(32, 2),
    )
    assert pickle.loads(pickle.dumps(asked)) == asked
    packed = msgspec.msgpack.encode(asked)
    assert msgspec.msgpack.decode(packed, type=RunnerOptions) == asked
    assert asked.compiled == "/some/folder"
    with pytest.raises(FrozenInstanceError):
        asked.rows = 4  # type: ignore[misc]


def test_options_need_no_torch() -> None:
    """The process that only hands them over has not loaded it."""
    code = (
        "import sys; from chatstream_trio.torch_runner.load.options import RunnerOptions;"
        " RunnerOptions(model_id='m'); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
