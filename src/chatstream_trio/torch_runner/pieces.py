"""What the streams bring to a forward pass. Pure: it knows tokens, rows and blocks, no tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import Factory, frozen


@frozen
class Piece:
    """Some tokens of one row, at consecutive positions from ``start`` on."""

    row: int
    start: int
    tokens: Sequence[int]
    wanted: int = 1
    """After so many of the last tokens the logits are wanted."""
    table: tuple[int, ...] = Factory(lambda self: (self.row,), takes_self=True)
    """The row's blocks in the pool, in the order of positions."""

    @property
    def stop(self) -> int:
        """The length of the row, once these tokens are in it."""
        return self.start + len(self.tokens)


def steps_first(
    pieces: Sequence[Piece], key: Callable[[Piece], int] | None = None
) -> tuple[list[Piece], list[Piece]]:
    """Those of a single token, sorted by ``key`` if there is one; and those of several."""
    steps = [piece for piece in pieces if len(piece.tokens) == 1]
    if key is not None:
        steps.sort(key=key)
    return steps, [piece for piece in pieces if len(piece.tokens) > 1]


def tables(pieces: Sequence[Piece], size: int, longest: int = 0) -> list[int]:
    """The tables of some rows whose blocks are pages, one after the other and equally long.

    What is too short is padded with a block of its own: that is masked, and must be finite, which a
    block that nothing was written to yet need not be.

    Args:
        pieces: At least one.
        size: Tokens of a page.
        longest: The tables are long enough for so many tokens, and for the longest row.
    """
    used = [-(-piece.stop // size) for piece in pieces]
    width = max(*used, -(-longest // size))
    padded = [
        piece.table[:own] + piece.table[:1] * (width - own)
        for own, piece in zip(used, pieces, strict=True)
    ]
    return [block for table in padded for block in table]
