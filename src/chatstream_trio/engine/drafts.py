"""Guesses at what a stream says next, from its own tokens: speculation without a second model.

Prompt lookup: where the last tokens have stood before, what followed them then is a good guess in
summaries, code, quotations and tables (A. Saxena, "Prompt Lookup Decoding", 2023; N. Yang et al.,
"Inference with Reference", arXiv:2304.04487). The model checks a whole guess in one decode step.
Since what a stream says at a position is a function of its logits and one number for that position
(law 7 of the design), the runner simply chooses as always and keeps the guesses that agree: the
answer is the same with and without speculation, greedy or sampled.

Pure: it does not know models, rows or turns.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

_LONGEST, _SHORTEST = 3, 2
"""Tokens that must have stood together before. The longer match is the better guess."""
_MEMORY = 0.75
"""What the past weighs in the share of guesses that were right."""
_PAYS = 0.25
"""Below this share a stream is better off without: a wrong guess costs its part of a step."""
_REST = 64
"""Tokens without guesses, before a stream on which they did not pay gets another chance."""


@define
class Drafter:
    """The guesses for one stream.

    Args:
        most: Tokens of the longest guess.
    """

    most: int
    _after: dict[tuple[int, ...], int] = field(factory=dict, init=False)
    """Some tokens that stood together -> the position behind the last place where they did."""
    _seen: int = field(default=0, init=False)
    """Tokens of the stream that were learnt from: only what is new is looked at."""
    _length: int = field(init=False)
    """Tokens of the next guess: more after a right one, fewer after a wrong one."""
    _share: float = field(default=0.5, init=False)
    """The share of guessed tokens that were right lately."""
    _resumes: int = field(default=0, init=False)
    """The length of the stream at which guessing goes on."""

    def __attrs_post_init__(self) -> None:
        self._length = min(4, self.most)

    def guess(self, tokens: Sequence[int], most: int) -> tuple[int, ...]:
        """What may follow ``tokens``, at most ``most`` of them; often nothing.

        Args:
            tokens: The stream's prompt and what it has said. It only grows from call to call.
            most: What there is room for.
        """
        self._learn(tokens)
        if len(tokens) < self._resumes:
            return ()
        for size in range(_LONGEST, _SHORTEST - 1, -1):
            at = self._after.get(tuple(tokens[-size:]))
            if at is not None:
                return tuple(tokens[at : at + min(most, self._length)])
        return ()

    def settle(self, guessed: int, right: int, length: int) -> None:
        """Hear how many of the last guess's tokens were right, and how long the stream is now."""
        self._share = _MEMORY * self._share + (1 - _MEMORY) * right / guessed
        self._length = min(self.most, 2 * guessed if right == guessed else right + 1)
        if self._share < _PAYS:
            self._share, self._resumes = 0.5, length + _REST

    def _learn(self, tokens: Sequence[int]) -> None:
        """Note what stands before each new token, but not yet the end, behind which is nothing."""
        for at in range(max(self._seen, _SHORTEST), len(tokens)):
            for size in range(_SHORTEST, min(_LONGEST, at) + 1):
                self._after[tuple(tokens[at - size : at])] = at
        self._seen = len(tokens)
