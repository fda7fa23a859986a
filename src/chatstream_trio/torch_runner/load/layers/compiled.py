"""The forward pass compiled ahead of time by torch's inductor, and kept on disk.

What transformers writes as some 1,500 small operations for each token becomes one library: norms,
rotations and activations are fused, and on processors that have the instructions for it the linear
layers get kernels made for their shapes. The model itself is untouched: :mod:`.tracing` traces it
once.

Compiling takes a minute or more. The result is kept in a folder whose name is a digest of all that
it depends on, the weights included, and is loaded in about a second the next time. Beside it lies
how fast it was here, against packed weights: where those are faster, they are what is served.

This module does not know turns, settings or what a model is good for.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import mmap
import os
import re
import shutil
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from attrs import frozen
from transformers import PreTrainedModel

from chatstream_trio.errors import first_line
from chatstream_trio.torch_runner.attention.interface import active
from chatstream_trio.torch_runner.inputs import Given
from chatstream_trio.torch_runner.load.layers.linears import restored
from chatstream_trio.torch_runner.load.layers.tracing import Logits, trace
from chatstream_trio.torch_runner.shape import Shape

logger = logging.getLogger(__name__)

_OPTIONS = {
    "freezing": True,
    "max_autotune": True,
    "max_autotune_gemm_backends": "CPP,ATEN",
    "max_autotune_report_choices_stats": False,
}
_BUILDING = ".building-"
_STALE_SECONDS = 24 * 3600
"""Nobody compiles for longer than that."""
_UNCHANGED = re.compile(
    r"^(\w+)-(\w+) r-\S+ \S+ \S+ \S+ +(/.*)\n(?:[A-Z].*\n)*?Anonymous: +0 kB$", re.MULTILINE
)
"""A mapping of a file, as in Linux's ``smaps``, that is neither writable nor relocated."""
_VERSION = 3
"""Of what is compiled, as far as this module decides it. Count up when that changes."""


class CannotCompile(Exception):
    """This torch, this machine or this model does not allow it; the message says what was said."""


@frozen
class CompiledForward:
    """A compiled forward pass, for packed tokens of any number."""

    _library: Callable[..., Any]

    def __call__(self, given: Given) -> torch.Tensor:
        """The logits ``[n, vocabulary]`` of what is wanted; attention is left to the batch."""
        # A size of 1 would have been taken for a constant while tracing.
        longer = given.padded(Shape(2, 2))
        with active(longer.batch):
            logits: torch.Tensor = self._library(longer.ids, longer.positions, longer.wanted)
        return logits[: len(given.wanted)]


def build(model: PreTrainedModel, logits: Logits, folder: Path) -> Path:
    """Compile a forward pass, unless that was done earlier. The model is left as it is.

    Threads: the number that torch has now is built in.

    Args:
        model: The model, on the CPU, with our attention.
        logits: Its forward pass over packed tokens.
        folder: Where compiled models are kept.

    Returns:
        The place of this one, for :func:`load`.

    Raises:
        CannotCompile: No C++ compiler, for example, or an operation that cannot be traced.
    """
    place = folder / digest(model)
    if not place.is_dir():
        logger.info("compiling for this machine, which takes a minute or more, once: %s", place)
        try:
            _build(model, logits, place)
        except Exception as error:  # whatever tracing, inductor and the C++ compiler may raise
            raise CannotCompile(first_line(error)) from error
    return place


def load(place: Path) -> CompiledForward:
    """Load what was built.

    Raises:
        CannotCompile: It is damaged.
    """
    try:
        return CompiledForward(_load(place))
    except Exception as error:
        raise CannotCompile(f"{place} cannot be loaded: {first_line(error)}") from error


def digest(model: PreTrainedModel) -> str:
    """What a compiled model depends on: weights, configuration, versions, processor, threads."""
    seen = hashlib.blake2b(digest_size=16)
    capabilities = getattr(torch.cpu, "get_capabilities", torch.backends.cpu.get_cpu_capability)
    versions = (_VERSION, torch.__version__, transformers.__version__)
    said = (*versions, capabilities(), torch.get_num_threads(), type(model).__name__)
    seen.update(repr(said).encode())
    seen.update(model.config.to_json_string(use_diff=False).encode())
    for name, tensor in sorted((*model.named_parameters(), *model.named_buffers())):
        seen.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        seen.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
    return seen.hexdigest()


def _sweep(folder: Path) -> None:
    """Remove what was left by processes that were ended while they compiled."""
    for left in folder.glob(f"{_BUILDING}*"):
        with suppress(FileNotFoundError):  # somebody else sweeps
            if left.stat().st_mtime < time.time() - _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _build(model: PreTrainedModel, logits: Logits, place: Path) -> None:
    """Compile into a folder, which is there whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _sweep(place.parent)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=_BUILDING) as name:
        package = Path(name, "model.pt2")
        # With gradients, inductor would neither freeze nor pack the weights.
        with _quiet(), torch.no_grad(), restored(model):
            exported = trace(model, logits)
            torch._inductor.aoti_compile_and_package(
                exported, package_path=str(package), inductor_configs=_OPTIONS
            )
        with zipfile.ZipFile(package) as archive:
            archive.extractall(name)
        try:
            os.rename(package.with_suffix(""), place)
        except OSError:
            if not place.is_dir():  # else somebody was faster
                raise


def _load(place: Path) -> Callable[..., Any]:
    """Load from a folder: an archive would be unpacked into a temporary one each time."""
    with _quiet():
        library: Callable[..., Any] = torch._inductor.aoti_load_package(str(place))
    _let_go_of_pages(place)
    return library


def _let_go_of_pages(folder: Path) -> None:
    """Tell Linux that what is mapped from these files is not needed now.

    A library brings its weights and copies them when it is loaded, after which both are resident.
    Only pages that are still the file's own are given up; they come back when they are read.
    """
    with suppress(OSError, AttributeError):  # another system than Linux
        advise, mapped = ctypes.CDLL(None).madvise, Path("/proc/self/smaps").read_text()
        for first, last, path in _UNCHANGED.findall(mapped):
            if folder.resolve() in Path(path).parents:
                start, stop = int(first, 16), int(last, 16)
                advise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without inductor's tables of measurements, and what torch warns of in its own code."""
    from torch._inductor import select_algorithm

    loggers = [logging.getLogger(name) for name in ("torch.export", "torch._inductor")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            mock.patch.object(select_algorithm, "PRINT_AUTOTUNE", new=False, create=True),
            warnings.catch_warnings(action="ignore"),
        ):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
