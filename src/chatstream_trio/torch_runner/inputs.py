"""What a forward pass is given and what it gives, and how it is made longer than it is.

It does not know models, streams or turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from attrs import evolve, field, frozen
from torch.nn.functional import pad

from chatstream_trio.torch_runner.attention.interface import AttendsLayer, LayerCall
from chatstream_trio.torch_runner.shape import Shape
from chatstream_trio.torch_runner.transfer import send


@frozen
class Given:
    """Packed tokens, what attends them, and whose logits are wanted."""

    batch: AttendsLayer
    ids: torch.Tensor
    """``[1, T]``"""
    positions: torch.Tensor
    """``[1, T]``"""
    wanted: torch.Tensor
    """Indices of packed tokens, ``[n]``."""

    @property
    def size(self) -> Shape:
        """How many tokens, and how many wanted logits."""
        return Shape(self.ids.shape[1], len(self.wanted))

    def padded(self, least: Shape) -> Given:
        """Not smaller than ``least``: with tokens behind its own that nobody sees, and with logits
        behind its own that nobody reads."""
        tokens = max(0, least.tokens - self.size.tokens)
        wanted = max(0, least.wanted - self.size.wanted)
        return Given(
            _Padded(self.batch, self.size.tokens) if tokens else self.batch,
            pad(self.ids, (0, tokens)),
            pad(self.positions, (0, tokens)),
            pad(self.wanted, (0, wanted)),
        )


@frozen
class Outputs:
    """What a forward pass gave, and what it was fed."""

    logits: torch.Tensor
    """``[n, vocabulary]``"""
    asked: list[tuple[int, int]]
    """For each of these, the row, and the position of the token that is to be chosen."""
    rows: torch.Tensor
    """Of each token that was fed, ``[T]``."""
    positions: torch.Tensor
    """``[T]``"""
    ids: torch.Tensor
    """``[T]``"""
    hidden: torch.Tensor | None = None
    """The last hidden states of the tokens that were fed, ``[T, width]``, where they were asked
    for."""
    spans: Mapping[int, slice] = field(factory=dict)
    """Where each row's tokens are among these."""

    def only(self, lines: Sequence[int]) -> Outputs:
        """With no other lines of logits than these."""
        asked = [self.asked[line] for line in lines]
        index = send(lines, self.logits.device, torch.int64)
        return evolve(self, logits=self.logits[index], asked=asked)


@frozen
class _Padded:
    """A batch with tokens behind it that see nothing and are not stored."""

    batch: AttendsLayer
    count: int
    """Tokens of the batch."""

    def attend(self, call: LayerCall) -> torch.Tensor:
        """The batch's attention, and zeros."""
        query, key, value = (part[:, : self.count] for part in (call.query, call.key, call.value))
        out = self.batch.attend(evolve(call, query=query, key=key, value=value))
        return pad(out, (0, 0, 0, 0, 0, call.query.shape[1] - self.count))
