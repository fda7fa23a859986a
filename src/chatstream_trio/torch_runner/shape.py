"""The sizes of a forward pass. It does not know tensors."""

from __future__ import annotations

from attrs import frozen


@frozen
class Shape:
    """The sizes of a forward pass."""

    tokens: int
    wanted: int
    """Tokens whose logits are computed."""

    def at_least(self, other: Shape) -> Shape:
        """The larger of both, in both sizes."""
        return Shape(max(self.tokens, other.tokens), max(self.wanted, other.wanted))
