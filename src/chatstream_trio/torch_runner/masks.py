"""Which tokens a stream may not say at a position, whatever their logits: they are put to minus
infinity.

A mask is a function of the position and of what the stream has said before it, so that a turn may
run again, and each token of a guess has the mask that it would have alone. It does not know rows,
nor how a token is chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from attrs import frozen
from torch.nn.functional import pad

from chatstream_trio.engine.runner import Sampling
from chatstream_trio.torch_runner.transfer import send

_ANY, _NONE = -1, -2
"""Where a bad word is shorter than the longest; where an answer is. No token is either."""


@frozen
class _Words:
    """Words that may not come, as tokens."""

    last: torch.Tensor
    """The last token of each, ``[n]``."""
    before: torch.Tensor
    """The tokens before it, ``[n, longest]``, padded in front with :data:`_ANY`."""

    @classmethod
    def of(cls, words: Sequence[Sequence[int]], device: torch.device) -> _Words:
        """Of words that have a token at least."""
        longest = max(map(len, words)) - 1
        before = [[_ANY] * (longest - len(word) + 1) + list(word[:-1]) for word in words]
        last = send([word[-1] for word in words], device)
        return cls(last, send(before, device, torch.int64).view(len(words), longest))

    def apply(self, scores: torch.Tensor, said: torch.Tensor) -> None:
        """Mask those whose beginning the end of ``said`` is."""
        longest = self.before.shape[1]
        end = said[max(0, len(said) - longest) :]
        end = pad(end, (longest - len(end), 0), value=_NONE)
        begun = ((self.before == end) | (self.before == _ANY)).all(dim=1)
        # Added, and not written: two words may have the same last token.
        scores.index_add_(0, self.last, torch.where(begun, -torch.inf, 0.0).to(scores.dtype))


@frozen
class Mask:
    """What one stream may not say."""

    prompt_length: int
    earliest: int
    """The first position at which a token may stand that ends the stream."""
    stops: torch.Tensor | None
    """Tokens that end it, ``[n]``."""
    allowed: torch.Tensor | None
    """All others may not come, ``[n]``."""
    words: _Words | None

    @classmethod
    def of(
        cls,
        sampling: Sampling,
        prompt_length: int,
        stops: Collection[int],
        vocab_size: int,
        device: torch.device,
    ) -> Mask | None:
        """None where everything may come everywhere.

        Args:
            sampling: ``min_tokens``, ``allowed_token_ids`` and ``bad_words`` count.
            prompt_length: The answer begins behind so many tokens.
            stops: Tokens that end the stream, be they in the vocabulary or not.
            vocab_size: Tokens from there on have no scores.
            device: Where the scores are.
        """
        held = sorted(id for id in stops if 0 <= id < vocab_size) if sampling.min_tokens else []
        allowed, words = sampling.allowed_token_ids, sampling.bad_words
        if not held and allowed is None and not words:
            return None
        return cls(
            prompt_length,
            prompt_length + sampling.min_tokens,
            send(held, device) if held else None,
            None if allowed is None else send(allowed, device),
            _Words.of(words, device) if words else None,
        )

    def apply(self, scores: torch.Tensor, position: int, history: torch.Tensor) -> None:
        """Mask the scores of one position, in place.

        Args:
            scores: ``[vocabulary]``
            position: Where the token will stand.
            history: The tokens of the stream by position; those before ``position`` count.
        """
        if self.allowed is not None:
            kept = scores[self.allowed]
            scores.fill_(-torch.inf).index_copy_(0, self.allowed, kept)
        if self.stops is not None and position < self.earliest:
            scores.index_fill_(0, self.stops, -torch.inf)
        if self.words is not None:
            self.words.apply(scores, history[self.prompt_length : position])
