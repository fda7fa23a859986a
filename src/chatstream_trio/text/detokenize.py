"""Tokens to text as they come, and never half a character."""

from __future__ import annotations

from attrs import Factory, define, field
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from chatstream_trio.text.token_bytes import TokenBytes

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_LONGEST_CHARACTER = 8
"""Tokens that one character may take: at most its four bytes, and some that say nothing."""


@define
class IncrementalDecoder:
    """One answer of a model with a ``tokenizers`` tokenizer.

    The library's ``DecodeStream`` keeps tokens back while they end in an incomplete character
    (byte-level BPE cuts Japanese and emoji anywhere). What it keeps, it does not show; so the
    tokens since its last text are remembered here for :meth:`flush`.

    A model may say any bytes, and decoding is not monotone: a byte that does not go on as it should
    can turn text that was said already into replacement characters, at which the library raises.
    Then, and when so many tokens are kept back that no character explains it, what is pending is
    said as it decodes by itself, and the stream begins anew behind it.
    """

    tokenizer: Tokenizer
    bytes_of: TokenBytes = field(
        default=Factory(lambda self: TokenBytes.of(self.tokenizer), takes_self=True), kw_only=True
    )
    """What a token stands for by itself."""
    hidden: frozenset[int] = field(
        default=Factory(lambda self: special_tokens(self.tokenizer), takes_self=True), kw_only=True
    )
    """Tokens that are no part of the text: the special ones, but for those that mark something."""
    _stream: DecodeStream = field(init=False)
    _said: list[int] = field(factory=list, init=False)
    """The tokens of the last text: they are the context in which the pending ones are decoded."""
    _pending: list[int] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._stream = DecodeStream(skip_special_tokens=False)

    def push(self, token: int) -> str:
        """Take one token id; return the whole characters that it completes."""
        if token in self.hidden:
            return ""
        self._pending.append(token)
        try:
            text = self._stream.step(self.tokenizer, token)
        except Exception:  # the library's own class for it is a bare Exception
            return self._begin_anew()
        if text is None:
            return self._begin_anew() if len(self._pending) > _LONGEST_CHARACTER else ""
        self._said, self._pending = self._pending, []
        return text

    def _begin_anew(self) -> str:
        text = self._rest()
        self._said, self._pending = self._pending[-1:], []
        self._stream = DecodeStream(self._said, skip_special_tokens=False)
        return text

    def flush(self) -> str:
        """What was held back. A character whose rest never came is dropped."""
        if not self._pending:
            return ""
        text = self._rest().rstrip(REPLACEMENT)
        self._pending = []
        return text

    def _rest(self) -> str:
        """What is pending, in the light of what was said before, unless that would change it."""
        before = self._decode(self._said)
        after = self._decode(self._said + self._pending)
        return after[len(before) :] if after.startswith(before) else self._decode(self._pending)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False))


def special_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids of a tokenizer's special tokens."""
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(id for id, token in added.items() if token.special)
