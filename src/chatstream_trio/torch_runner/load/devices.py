"""Where a model runs: device, number type, threads, and how much memory is free.

It knows the operating system and torch's view of it; it does not know models.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from chatstream_trio.errors import SettingsError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """``auto`` takes a GPU if there is one; anything else must be there.

    Raises:
        SettingsError: There is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in {"cpu", "cuda", "mps"}:
            raise RuntimeError("expected auto, cpu, cuda, cuda:N or mps")
        if device.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("this torch sees no CUDA device")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"device {name!r} cannot be used: {reason}", param="device") from error
    return device


def choose_dtype(name: str, stored: torch.dtype | None, device: torch.device) -> torch.dtype:
    """``auto`` is what the checkpoint says; a CPU computes float16 as float32.

    (What a CPU does with bfloat16 is :func:`.loading.affordable_dtype`'s to say.)

    Raises:
        SettingsError: The name is none of auto, float32, bfloat16 and float16.
    """
    if name != "auto":
        if name not in _DTYPES:
            allowed = ", ".join(_DTYPES)
            raise SettingsError(f"dtype {name!r} is none of auto, {allowed}", param="dtype")
        return _DTYPES[name]
    dtype = stored if stored in _DTYPES.values() else torch.float32
    if device.type == "cpu" and dtype == torch.float16:
        return torch.float32
    return dtype


def choose_threads(wanted: int | None) -> int:
    """Compute threads: the physical cores that this process may use, less one for the event loop.

    Compute threads meet at a barrier several hundred times a turn. A core that somebody else takes
    for a moment holds up all of them, so from three cores on one is left to the event loop. With
    two cores that would give away half of the compute; there :func:`settle_threads` tries both.
    """
    return wanted if wanted is not None else _default_threads(_physical_cores())


def settle_threads(work: Callable[[], object], rounds: int = 3) -> int:
    """With two threads: keep them if ``work`` is faster so on this machine now, else take one.

    Measured on two cores with a 135 M model in float32 and eight streams, while another process
    (at nice 10) saturated a core: 64 tokens/s with one thread, 6.6 with two. Nobody but the
    operator knows whether a machine stays as quiet, or as busy, as it is at the start.

    Returns:
        The number of threads that torch was left with.
    """
    if torch.get_num_threads() != 2:
        return int(torch.get_num_threads())
    best = {1: float("inf"), 2: float("inf")}
    work()
    for _ in range(rounds):
        for threads in best:
            torch.set_num_threads(threads)
            begin = time.perf_counter()
            work()
            best[threads] = min(best[threads], time.perf_counter() - begin)
    chosen = 2 if best[2] < best[1] else 1
    torch.set_num_threads(chosen)
    return chosen


def _default_threads(cores: int) -> int:
    return cores - 1 if cores > 2 else max(1, cores)


def _physical_cores() -> int:
    """Cores by affinity, hyperthreads counted once, within the quota of a container."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    cores = set()
    for cpu in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            cores.add(str(cpu))
    count = len(cores)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup, or "max": no quota
    return count


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on ``device`` now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    free = _available_memory()
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        free = min(free, limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no cgroup, or "max": no limit
    return max(0, free)


def _available_memory() -> int:
    """What Linux says is available; elsewhere half of what the machine has, which is a guess."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
