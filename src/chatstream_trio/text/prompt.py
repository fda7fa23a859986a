"""A conversation as a model reads it: the model's own chat template, then its tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import field, frozen
from tokenizers import Tokenizer

from chatstream_trio.conversation import Conversation
from chatstream_trio.errors import ContextTooLong, InvalidRequest
from chatstream_trio.text.answers.style import AUTO, ENOUGH, AnswerStyle, Reading
from chatstream_trio.text.codec import PlainParser, Prompt
from chatstream_trio.text.control import ControlTokens
from chatstream_trio.text.detokenize import IncrementalDecoder, special_tokens
from chatstream_trio.text.forms import Form, Spoken
from chatstream_trio.text.template import ChatTemplate
from chatstream_trio.text.token_bytes import TokenBytes


@frozen
class ChatCodec:
    """The chat template and tokenizer of a transformers model.

    Args:
        tokenizer: A fast ``PreTrainedTokenizer`` (one with a ``tokenizers`` backend).
        trust_special_tokens: Take what looks like a control token for one, whoever wrote it.
        tool_parser: How calls are found in answers: a name of
            ``text/answers/formats.py``, ``auto`` or ``none``.
        reasoning_parser: The same for reasoning.

    Raises:
        ModelNotLoaded: The chat template is broken.
    """

    tokenizer: Any
    trust_special_tokens: bool = False
    tool_parser: str = AUTO
    reasoning_parser: str = AUTO
    _answers: Mapping[bool, AnswerStyle] = field(init=False)
    """By whether tools were told of in words."""
    _special: frozenset[int] = field(init=False)
    _template: ChatTemplate = field(init=False)
    _backend: Tokenizer = field(init=False)
    _bytes_of: TokenBytes = field(init=False)
    _around: tuple[tuple[int, ...], tuple[int, ...]] = field(init=False)
    """What the tokenizer itself puts before and behind a text that no template was made for."""
    _control: ControlTokens | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        # A copy: transformers sets padding and truncation at each call of its own, and a saved
        # tokenizer may bring them, which would cut what people say.
        backend = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False
        template = ChatTemplate(self.tokenizer)
        control = None
        if not self.trust_special_tokens:
            control = ControlTokens.of(backend, template.source)
        style = partial(AnswerStyle, self.tokenizer, template.source)
        answers = {
            told: style(self.tool_parser, self.reasoning_parser, told) for told in (False, True)
        }
        for name, value in (
            ("_template", template),
            ("_backend", backend),
            ("_bytes_of", TokenBytes.of(backend)),
            ("_around", _around(backend)),
            ("_control", control),
            ("_special", special_tokens(backend)),
            ("_answers", answers),
        ):
            object.__setattr__(self, name, value)

    def read(self, said: Conversation | str | tuple[int, ...], most: int | None = None) -> Prompt:
        """Render the template and tokenize; see :class:`~chatstream_trio.text.codec.Codec`."""
        told = False
        if isinstance(said, Conversation):
            tokens, told = self._read_conversation(said, most)
        elif isinstance(said, str):
            tokens = (*self._around[0], *self._encode_raw(said, most))
        else:
            tokens = said
        param = "messages" if isinstance(said, Conversation) else "prompt"
        if not tokens:
            raise InvalidRequest("the prompt is empty", param=param)
        _check_length(len(tokens), most, param)
        reading = Reading()
        if isinstance(said, Conversation):
            reading = self._answers[told].read(said, lambda: self.decode(tokens[-ENOUGH:]))
        return Prompt(
            tokens,
            partial(
                IncrementalDecoder,
                self._backend,
                bytes_of=self._bytes_of,
                hidden=self._special - reading.shown,
            ),
            parser=reading.parser or PlainParser,
            grammar=reading.grammar,
            forced=reading.forced,
            reasoning_first=reading.reasoning_first,
        )

    def _read_conversation(
        self, conversation: Conversation, most: int | None
    ) -> tuple[tuple[int, ...], bool]:
        """Its tokens, and whether tools are told of in words in it."""
        spoken = Spoken.of(conversation)
        hidden = spoken if self._control is None else self._control.hide(spoken)
        text, form = self._template.render(hidden)
        if self._control is not None and hidden != spoken:
            tokens: Sequence[int] = self._control.encode(text)
        else:
            tokens = self._encode_raw(text, most, "messages")
        beginning = () if self._template.source else self._around[0]
        return (*beginning, *tokens), form in (Form.TOLD, Form.TOLD_BY_USER)

    def stop_tokens(self, stops: Iterable[str]) -> frozenset[int]:
        """The special tokens among stop strings: they are never part of the text."""
        wanted = set(stops)
        added = self._backend.get_added_tokens_decoder()
        return frozenset(id for id, token in added.items() if token.content in wanted)

    def encode(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        """See :class:`~chatstream_trio.text.codec.Codec`."""
        tokens = self._encode_text(text)
        if not special:
            return tuple(tokens)
        before, behind = self._around
        return (*before, *tokens, *behind)

    def decode(self, tokens: Sequence[int]) -> str:
        """See :class:`~chatstream_trio.text.codec.Codec`."""
        # As with encoding, this is the way that gives up Python's lock.
        (text,) = self._backend.decode_batch([list(tokens)], skip_special_tokens=False)
        return str(text)

    def _encode_text(self, text: str) -> Sequence[int]:
        if self._control is not None:
            hidden = self._control.hide_text(text)
            if hidden != text:
                return self._control.encode(hidden)
        (encoding,) = self._backend.encode_batch_fast([text], add_special_tokens=False)
        return list(encoding.ids)

    def _encode_raw(self, text: str, most: int | None, param: str = "prompt") -> Sequence[int]:
        """What looks like a control token is one."""
        # This way of encoding gives up Python's lock: 4 MB take seconds. And without offsets what
        # comes back is freed in a millisecond, and not in 70 that hold it.
        (encoding,) = self._backend.encode_batch_fast([text], add_special_tokens=False)
        _check_length(len(encoding), most, param)
        return list(encoding.ids)


def _around(backend: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens that the tokenizer puts before a text, and those that it puts behind it."""
    whole, bare = (backend.encode("a", add_special_tokens=special).ids for special in (True, False))
    starts = range(len(whole) - len(bare) + 1)
    at = next((at for at in starts if whole[at : at + len(bare)] == bare), 0)
    return tuple(whole[:at]), tuple(whole[at + len(bare) :])


def _check_length(length: int, most: int | None, param: str) -> None:
    """Refuse a hopeless prompt before a list of millions of ids is made.

    Raises:
        ContextTooLong: There are more tokens than ``most``.
    """
    if most is not None and length > most:
        raise ContextTooLong(
            f"the model's maximum context length is {most} tokens; the prompt has {length}",
            param=param,
        )
