"""What a way of attending to the KV pool has to do; each has a file of its own.

:mod:`.rows` where a block of the pool is a whole row, :mod:`.gathered` and :mod:`.paged` where it
is a page. All of them see what is in the pool already: who packs a turn stores the new keys and
values first. This module knows no tensor's numbers, and computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from chatstream_trio.torch_runner.attention.interface import AttendsLayer
from chatstream_trio.torch_runner.kv import KvPool
from chatstream_trio.torch_runner.pieces import Piece
from chatstream_trio.torch_runner.spans import Numbers


class Plan(Protocol):
    """How one turn's tokens are attended, before its numbers are on the device."""

    def arrive(self, there: torch.Tensor) -> AttendsLayer:
        """With the turn's numbers on the device, where the plan finds its own by their spans."""


class Backend(Protocol):
    """A way of attending, for all turns. A frozen value."""

    @property
    def note(self) -> str | None:
        """What the operator is told of it."""

    def order(self, pieces: Sequence[Piece]) -> list[Piece]:
        """In the order in which they are to be packed: single tokens first."""

    def plan(self, pool: KvPool, pieces: Sequence[Piece], numbers: Numbers) -> Plan:
        """Plan a turn.

        Args:
            pool: In which the keys and values are.
            pieces: At least one, as :meth:`order` gave them.
            numbers: Takes what the plan wants on the device.
        """
