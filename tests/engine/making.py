"""Runners from keywords, which are those of ``RunnerOptions``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from chatstream_trio.grammars.compiler import Grammars
from chatstream_trio.torch_runner.load import build
from chatstream_trio.torch_runner.load.options import RunnerOptions
from chatstream_trio.torch_runner.runner import TransformersRunner


def make_runner(
    model: PreTrainedModel, *, grammars: Grammars | None = None, **given: Any
) -> TransformersRunner:
    """:func:`chatstream_trio.torch_runner.load.build.make_runner`."""
    return build.make_runner(model, RunnerOptions(**given), grammars)


def load_runner(
    source: str, *, progress: Callable[[float], None] | None = None, **given: Any
) -> TransformersRunner:
    """:func:`chatstream_trio.torch_runner.load.build.load_runner`."""
    return build.load_runner(source, RunnerOptions(**given), progress)
