"""Numbers on their way to a device and back, without making the device wait, or waiting for it.

A plain copy to a GPU waits until the GPU has done all that it was told before. Out of pinned memory
it does not: the copy takes its place in the device's queue, and the thread goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch


def send(numbers: Any, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A (nested) list of numbers as a tensor on ``device``."""
    tensor = torch.tensor(numbers, dtype=dtype)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def fetch(tensor: torch.Tensor) -> Callable[[], list[Any]]:
    """Bring a tensor home: what is returned waits until it is there, as a (nested) list."""
    if tensor.device.type != "cuda":
        return partial(torch.Tensor.tolist, tensor)
    home = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    home.copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> list[Any]:
        arrived.synchronize()
        numbers: list[Any] = home.tolist()
        return numbers

    return wait
