"""How a model is to be loaded and run: one plain value, that can go to another process.

It knows names and numbers. It does not know torch, where a model comes from, or any secret.
"""

from __future__ import annotations

import os

from attrs import field, frozen

from chatstream_trio.engine.budget import Budget
from chatstream_trio.torch_runner.shape import Shape

KV_MEMORY = Budget.parse("50%")
"""What the KV memory may take by default."""


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


@frozen(kw_only=True)
class RunnerOptions:
    """What is asked of a runner. Whether it can be had is found out when the runner is made."""

    model_id: str
    """The name under which it is served."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    dtype: str = "auto"
    """``auto`` (the checkpoint's own), ``float32``, ``bfloat16`` or ``float16``."""
    rows: int = 8
    """Streams that can be active at once."""
    max_model_len: int | None = None
    """Tokens of prompt and answer that one stream may have. By default the model's own context, or
    as many as there is memory for."""
    threads: int | None = None
    """Compute threads on a CPU; see :func:`.devices.choose_threads`."""
    kv_memory: Budget = KV_MEMORY
    """What all keys and values may take. With CUDA it is cut into pages, which streams share;
    elsewhere every row has an equal part of it."""
    block_size: int | None = None
    """Asks for pages of so many tokens, whatever the device."""
    compiled: str | None = field(default=None, converter=_text)
    """Compile the model, on a CPU, and keep what comes out in this folder."""
    quantize: str | None = None
    """Keep the weights of linear layers as ``int8`` or ``int4``, on a CPU."""
    shape: Shape | None = None
    """Make every forward pass so large, with padding: what a stream says then depends on nobody
    else, to the last bit. No turn may be larger."""
