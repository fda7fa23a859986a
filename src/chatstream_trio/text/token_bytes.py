"""Which bytes a token stands for, by itself: a token may be half a character. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen
from tokenizers import Tokenizer

_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What SentencePiece writes for a blank."""


def _alphabet() -> dict[str, int]:
    """The letters by which a byte-level tokenizer writes bytes: those that can be printed are
    themselves, the others follow behind (GPT-2, ``encoder.py``)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}


_ALPHABET = _alphabet()


@frozen
class TokenBytes:
    """The bytes of a tokenizer's tokens. Together, those of a text's tokens are the text's, maybe
    with a blank before it."""

    _tokenizer: Tokenizer
    _added: Mapping[int, str]
    _byte_level: bool

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenBytes:
        """For byte-level tokenizers, and those that write a blank as SentencePiece does."""
        added = {id: str(it.content) for id, it in tokenizer.get_added_tokens_decoder().items()}
        return cls(tokenizer, added, "ByteLevel" in repr(tokenizer.decoder))

    def __call__(self, token: int) -> bytes:
        """The bytes of a token; none for an id that is none."""
        if (content := self._added.get(token)) is not None:
            return content.encode()
        piece = self._tokenizer.id_to_token(token) or ""
        if self._byte_level:
            return bytes(_ALPHABET[letter] for letter in piece if letter in _ALPHABET)
        if fallback := _FALLBACK.fullmatch(piece):
            return bytes.fromhex(fallback[1])
        return str(piece).replace(_SPACE, " ").encode()
