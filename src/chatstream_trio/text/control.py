"""What a person writes is text, and never a control token.

A chat template makes one string of its own marks (``<|im_end|>``) and of what people wrote, and in
that string the two look alike. So, where somebody wrote what looks like a mark: it is replaced by a
placeholder before the template sees it; the marks that the template writes get other names, by
which a second tokenizer knows them; and then what was written is put back, which that tokenizer
takes for ordinary text. Names and placeholders hold a random number that no client can know.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, frozen
from tokenizers import Tokenizer

from chatstream_trio.aside.pauses import PausingList, with_pauses
from chatstream_trio.text.forms import TOLD_MARKS, Said, Spoken

_OPENING, _CLOSING = "\ue000", "\ue001"
"""Characters for private use: no template, and no normalizer, does anything to them."""
_NEVER = re.compile(r"(?!)")


@frozen
class ControlTokens:
    """The marks of one tokenizer, and the tokenizer that knows them by other names.

    Special tokens are marks, whoever writes them. So are other added tokens that the template
    writes (``<tool_response>``), but in an assistant's words, which may be what the model said.
    """

    _nonce: str
    _special: re.Pattern[str]
    _marks: re.Pattern[str]
    _texts: Mapping[int, str]
    """By id: the added tokens."""
    _renamed: Tokenizer
    _ids: Mapping[int | None, int]
    """By the renamed tokenizer's id of an added token: its own."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, template: str) -> ControlTokens:
        """Those of ``tokenizer`` under ``template``, the source of a chat template."""
        added = tokenizer.get_added_tokens_decoder()
        texts = {id: token.content for id, token in added.items()}
        special = {token.content for token in added.values() if token.special}
        template += "".join(TOLD_MARKS)
        written = {text for text in texts.values() if text in template and not text.isspace()}
        nonce = "".join(secrets.choice("0123456789") for _ in range(24))
        names = {text: _name(text, nonce) for text in special | written}
        renamed = _rename(tokenizer, names)
        ids = {renamed.token_to_id(names.get(text, text)): id for id, text in texts.items()}
        return cls(nonce, _any(special), _any(names), texts, renamed, ids)

    def hide(self, spoken: Spoken) -> Spoken:
        """The same with placeholders for what looks like a mark; equal where nothing does."""
        messages = PausingList(self._hide_in(message) for message in with_pauses(spoken.messages))
        tools = PausingList(self._hidden(tool, self._marks) for tool in spoken.tools)
        options = self._hidden(spoken.options, self._marks)
        return evolve(spoken, messages=messages, tools=tools, options=options)

    def hide_text(self, text: str) -> str:
        """The same for what somebody wrote and no template is given."""
        return self._marks.sub(self._placeholder, text)

    def _hide_in(self, message: Said) -> Said:
        hidden = {"role": message["role"]}
        for key, value in message.items():
            own = message["role"] == "assistant" and key in ("content", "reasoning_content")
            if key != "role":
                hidden[key] = self._hidden(value, self._special if own else self._marks)
        return hidden

    def _hidden(self, value: Any, pattern: re.Pattern[str]) -> Any:
        if isinstance(value, str):
            return pattern.sub(self._placeholder, value)
        if isinstance(value, Mapping):
            return {
                self._hidden(key, pattern): self._hidden(held, pattern)
                for key, held in with_pauses(value.items())
            }
        if isinstance(value, list | tuple):
            return [self._hidden(held, pattern) for held in with_pauses(value)]
        return value

    def encode(self, text: str) -> list[int]:
        """The ids of what a template made of messages that :meth:`hide` has changed."""
        text = self._marks.sub(lambda mark: _name(mark[0], self._nonce), text)
        text = re.sub(
            _placed(self._nonce, "([0-9]+)"), lambda hole: self._texts[int(hole[1])], text
        )
        (encoding,) = self._renamed.encode_batch_fast([text], add_special_tokens=False)
        return [self._ids.get(id, id) for id in encoding.ids]

    def _placeholder(self, mark: re.Match[str]) -> str:
        id = next(id for id, text in self._texts.items() if text == mark[0])
        return _placed(self._nonce, str(id))


def _name(mark: str, nonce: str) -> str:
    return f"{mark}{_placed(nonce, 'mark')}"


def _placed(nonce: str, what: str) -> str:
    return f"{_OPENING}{nonce}-{what}{_CLOSING}"


def _any(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds the longest of them."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else _NEVER


def _rename(tokenizer: Tokenizer, names: Mapping[str, str]) -> Tokenizer:
    """A copy that has other names for some added tokens, and does not know the old ones at all."""
    saved: dict[str, Any] = json.loads(tokenizer.to_str())
    for token in saved["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = saved["model"]
    match model.get("vocab"):
        case dict() as vocab:
            model["vocab"] = {names.get(text, text): id for text, id in vocab.items()}
        case list() as vocab:
            model["vocab"] = [[names.get(text, text), score] for text, score in vocab]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    saved["post_processor"] = None
    return Tokenizer.from_str(json.dumps(saved))
