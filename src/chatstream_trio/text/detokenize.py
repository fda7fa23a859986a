"""Tokens to text as they come, and never half a character."""

from __future__ import annotations

from attrs import define, field
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@define
class IncrementalDecoder:
    """One answer of a model with a ``tokenizers`` tokenizer.

    The library's ``DecodeStream`` keeps tokens back while they end in an incomplete character
    (byte-level BPE cuts Japanese and emoji anywhere). What it keeps, it does not show; so the
    tokens since its last text are remembered here for :meth:`flush`.
    """

    tokenizer: Tokenizer
    _stream: DecodeStream = field(init=False)
    _said: list[int] = field(factory=list, init=False)
    """The tokens of the last text: they are the context in which the pending ones are decoded."""
    _pending: list[int] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._stream = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        """Take one token id; return the whole characters that it completes."""
        self._pending.append(token)
        text = self._stream.step(self.tokenizer, token)
        if text is None:
            return ""
        self._said, self._pending = self._pending, []
        return text

    def flush(self) -> str:
        """What was held back. A character whose rest never came is dropped."""
        if not self._pending:
            return ""
        before = self._decode(self._said)
        after = self._decode(self._said + self._pending)
        self._pending = []
        return after[len(before) :].rstrip(REPLACEMENT)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))
