"""A stand-in for CUDA graphs: records operations on a CPU, and replays just those.

Like a CUDA graph it knows no Python at replay: every operation gets the very tensors that it got
while it was recorded, and the numbers that Python had then. What was read or computed outside of
the recording stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a number was wanted while recording")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, tensors(out)))
        return out


def tensors(tree: Any) -> list[torch.Tensor]:
    """Those that have an address; oneDNN's packed weights have none."""
    leaves = tree_leaves(tree)
    return [t for t in leaves if isinstance(t, torch.Tensor) and not t.is_mkldnn]


def capture(function: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
    """As :data:`chatstream_trio.torch_runner.graphs.Capture` says."""
    recorder = _Recorder()
    with recorder:
        result = function()

    def replay() -> None:
        for func, args, kwargs, outs in recorder.calls:
            given = {t.untyped_storage().data_ptr() for t in tensors((args, kwargs))}
            for old, new in zip(outs, tensors(func(*args, **kwargs)), strict=True):
                if old.untyped_storage().data_ptr() not in given:  # else it is a view, or in place
                    old.copy_(new)

    return replay, result
