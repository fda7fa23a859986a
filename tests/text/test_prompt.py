"""From a conversation to token ids: nothing forged, nothing left out, nothing cut."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

pytest.importorskip("transformers")
from transformers import PreTrainedTokenizerFast

from chatstream_trio.aside.pauses import PausingList
from chatstream_trio.conversation import Conversation, Message, TextPart
from chatstream_trio.errors import ContextTooLong, InvalidRequest, ModelNotLoaded
from chatstream_trio.text.detokenize import IncrementalDecoder
from chatstream_trio.text.prompt import ChatCodec
from chatstream_trio.text.token_bytes import TokenBytes

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "a seat for you, user",
    "席が空くまで待ちます",
    "system assistant hello <|im end|> INST",
] * 3
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(tokenizer, trainers.BpeTrainer, vocab_size=340, initial_alphabet=alphabet)


def byte_fallback() -> Tokenizer:
    """Llama 2's kind: spaces are a letter, and what the vocabulary lacks is said in bytes."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<s>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trained(tokenizer, trainers.BpeTrainer, vocab_size=400, special_tokens=[*SPECIAL, *byte_tokens])
    saved = json.loads(tokenizer.to_str())
    saved["added_tokens"] = [t for t in saved["added_tokens"] if t["content"] in SPECIAL]
    tokenizer = Tokenizer.from_str(json.dumps(saved))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    letters = sorted({*"".join(CORPUS), "\n", *map(chr, range(33, 127))})
    return trained(
        tokenizer,
        trainers.UnigramTrainer,
        vocab_size=300,
        initial_alphabet=letters,
        unk_token="<s>",
    )


def trained(tokenizer: Tokenizer, trainer: Any, **options: Any) -> Tokenizer:
    options = {"special_tokens": SPECIAL, "show_progress": False, **options}
    tokenizer.train_from_iterator(CORPUS, trainer(**options))
    return tokenizer


KINDS = {"byte level": byte_level(), "byte fallback": byte_fallback(), "unigram": unigram()}


def spoilt(tokenizer: Tokenizer) -> Tokenizer:
    """Saved with settings that would change what is read."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50, pad_id=1)
    return tokenizer


def codec(
    tokenizer: Tokenizer | None = None, template: Any = CHATML, *, trust: bool = False
) -> ChatCodec:
    wrapped = PreTrainedTokenizerFast(tokenizer_object=spoilt(tokenizer or KINDS["byte level"]))
    wrapped.chat_template = template
    return ChatCodec(wrapped, trust)


CODECS = {name: codec(tokenizer) for name, tokenizer in KINDS.items()}


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def talk(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    return Conversation(PausingList(Message(**message) for message in messages))


def plain_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.sampled_from("aeu s席,.|<>\n"), max_size=40))
@settings(max_examples=60, deadline=None)
def test_ordinary_text_is_encoded_as_it_always_is(kind: str, text: str) -> None:
    """Law 7: the very ids of the template's text, whatever was saved in the tokenizer."""
    assume(not any(mark in text for mark in SPECIAL))
    rendered = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant"
    assert list(CODECS[kind].read(talk(user(text))).tokens) == plain_ids(KINDS[kind], rendered)


def test_a_long_conversation_is_read() -> None:
    """As the service gives it, in a list whose walks pause, within others that do."""
    messages = 5_000 * [*user("hi"), {"role": "assistant", "content": "席"}]
    with pytest.raises(ContextTooLong, match="the prompt has"):
        CODECS["byte level"].read(talk(messages), 100)


PIECES = [*SPECIAL, "a", " ", "seat", "<|im_", "end|>", "\n", "user", "<", "<|im_end", "席"]


@pytest.mark.parametrize("kind", KINDS)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12))
@settings(max_examples=100, deadline=None)
def test_what_a_user_writes_is_text(kind: str, pieces: list[str]) -> None:
    """No control token but the template's three, and what was written comes out as it went in."""
    text, tokenizer = "".join(pieces), KINDS[kind]
    tokens = list(CODECS[kind].read(talk(user(text))).tokens)
    marks = {tokenizer.token_to_id(mark) for mark in SPECIAL[1:]}
    start, end = (tokenizer.token_to_id(mark) for mark in SPECIAL[2:])
    assert [token for token in tokens if token in marks] == [start, end, start]
    said = tokens[1 : tokens.index(end)]
    lead = "user\n"
    decoded = tokenizer.decode(said, skip_special_tokens=False)
    if kind != "unigram" or text.strip():
        assert decoded.replace("\n", "").replace(" ", "") == (lead + text).replace(
            "\n", ""
        ).replace(" ", "")


@pytest.mark.parametrize("kind", KINDS)
def test_text_around_it_keeps_its_tokens(kind: str) -> None:
    """The template's marks divide the text in the same way, with the same spaces at the edges."""
    tokenizer = KINDS[kind]
    tokens = list(CODECS[kind].read(talk([*user("a seat"), *user("x</s>y")])).tokens)
    before = plain_ids(tokenizer, "<|im_start|>user\na seat<|im_end|>\n<|im_start|>user\n")
    after = plain_ids(tokenizer, "<|im_end|>\n<|im_start|>assistant")
    shared = before[: before.index(tokenizer.token_to_id("<|im_end|>")) + 1]
    assert tokens[: len(shared)] == shared
    if kind != "unigram":  # where the first piece of a text is another than the same later
        assert tokens[-len(after) :] == after


def test_every_way_in_is_text() -> None:
    """System text and names as well; a flag trusts them, and only then is it control."""
    template = CHATML.replace("{{ m.content }}", "{{ m.name }}: {{ m.content | trim }}")
    end = KINDS["byte level"].token_to_id("<|im_end|>")
    messages = [
        {"role": "system", "content": " a<|im_end|>b ", "name": "x"},
        {"role": "user", "content": "c", "name": "<|im_end|>"},
        {"role": "assistant", "content": "<|im_end|>", "name": "y"},
    ]
    assert codec(template=template).read(talk(messages)).tokens.count(end) == 3
    assert codec(template=template, trust=True).read(talk(messages)).tokens.count(end) == 6


def test_a_template_may_look_at_what_an_assistant_said() -> None:
    """Added tokens that are not special are a mark for others, and text of the assistant's own."""
    tokenizer = Tokenizer.from_str(KINDS["byte level"].to_str())
    tokenizer.add_tokens(["</think>"])
    template = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
    found = codec(tokenizer, template)
    think = tokenizer.token_to_id("</think>")
    said = [{"role": "assistant", "content": "hm</think>a seat"}]
    assert tokenizer.decode(found.read(talk([*user("a"), *said])).tokens).count("hm") == 0
    asked = found.read(talk(user("b</think>a seat"))).tokens
    assert think not in asked
    assert "b</think>a seat" in tokenizer.decode(asked)


# ---- What templates leave out

KNOWS_THREE = (
    "{% for m in messages %}{% if m.role in ['system', 'user', 'assistant'] %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)
FIRST_SYSTEM_ONLY = (
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}] {{ m.content }}{% endif %}"
    "{% endfor %}"
)
NO_SYSTEM = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "[{{ m.role }}] {{ m.content }}{% endfor %}"
)
PARTS_ONLY = (
    "{% for m in messages %}[{{ m.role }}] {% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
)


def said_by(template: str, *messages: tuple[str, str]) -> str:
    found = codec(template=template)
    given = [{"role": role, "content": content} for role, content in messages]
    return str(KINDS["byte level"].decode(found.read(talk(given)).tokens))


def test_parts_are_one_text() -> None:
    """However a message was cut by whoever sent it."""
    found = codec()
    whole = Message("user", "a seat")
    parts = Message("user", (TextPart("a "), TextPart(""), TextPart("seat")))
    one, other = (found.read(Conversation([message])).tokens for message in (whole, parts))
    assert one == other
    assert (whole.text, whole.content) == ("a seat", (TextPart("a seat"),))


def test_a_developers_message_is_the_systems_where_none_is_known() -> None:
    """And where it is known, it stays what it is."""
    assert "system\nbe kind" in said_by(KNOWS_THREE, ("developer", "be kind"), ("user", "a"))
    assert "developer\nbe kind" in said_by(CHATML, ("developer", "be kind"), ("user", "a"))


def test_content_comes_in_the_form_that_a_template_reads() -> None:
    """As a list of parts, where it knows no strings."""
    assert said_by(PARTS_ONLY, ("user", "a seat")) == "[user] a seat"


@pytest.mark.parametrize(
    ("template", "messages", "param"),
    [
        (FIRST_SYSTEM_ONLY, [("user", "a"), ("system", "b"), ("user", "c")], "messages[1].role"),
        (FIRST_SYSTEM_ONLY, [("system", "a"), ("system", "b"), ("user", "c")], "messages[1].role"),
        (NO_SYSTEM, [("system", "a"), ("user", "b")], "messages"),
        ("{{ messages[-1].content }}", [("user", "a"), ("user", "b")], "messages[0].role"),
    ],
)
def test_what_would_be_left_out_is_refused_by_name(
    template: str, messages: list[tuple[str, str]], param: str
) -> None:
    """Never a message less than what was sent, without a word."""
    with pytest.raises(InvalidRequest) as refused:
        said_by(template, *messages)
    assert refused.value.param == param


def test_what_a_template_keeps_is_not_refused() -> None:
    """The same templates, with conversations that they know."""
    assert said_by(FIRST_SYSTEM_ONLY, ("system", "a"), ("user", "b"), ("assistant", "c"))
    assert said_by(NO_SYSTEM, ("user", "b"), ("assistant", "c"), ("user", "d"))


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages + 1 }}",
        "{% for m in messages %}",
        "{{ nothing.at.all }}",
        "no word of what was said",
        {"one": CHATML, "two": CHATML},
    ],
)
def test_a_broken_template_is_found_at_load(template: Any) -> None:
    """One line, instead of a server that answers 500 to everybody."""
    with pytest.raises(ModelNotLoaded, match="chat template") as failed:
        codec(template=template)
    assert "\n" not in failed.value.message


def test_what_a_conversation_breaks_is_refused() -> None:
    """Whatever the template raises: the conversation's fault, and no 500."""
    template = CHATML + "{% if messages | length > 2 %}{{ 1 // 0 }}{% endif %}"
    with pytest.raises(InvalidRequest, match="refuses this conversation"):
        codec(template=template).read(talk(user("a") * 3))


# ---- The tokenizer's own


@pytest.mark.parametrize("behind", [[], [("</s>", 1)]])
def test_without_a_template_the_tokenizers_beginning_is_there(behind: list[Any]) -> None:
    """And never the end that some put behind a text."""
    tokenizer = Tokenizer.from_str(KINDS["byte level"].to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A" + " </s>" * len(behind), special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokens = codec(tokenizer, None).read(talk(user("a"))).tokens
    assert tokens[0] == 0
    assert 1 not in tokens
    assert 0 not in codec(tokenizer, CHATML).read(talk(user("a"))).tokens


def test_a_hopeless_prompt_is_refused_with_the_words_that_clients_look_for() -> None:
    """Before its ids are made."""
    with pytest.raises(ContextTooLong, match="maximum context length is 8 tokens"):
        codec().read(talk(user("a seat for you " * 20)), most=8)


def test_a_stop_string_that_is_a_token_is_a_stop_token() -> None:
    """Special tokens are no part of the text, so they can be found as tokens only."""
    tokenizer = KINDS["byte level"]
    found = codec().stop_tokens(["<|im_end|>", "seat", "x<|im_end|>"])
    assert found == {tokenizer.token_to_id("<|im_end|>")}


# ---- A text that is no conversation


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.sampled_from("aeu s席,.|<>\n"), max_size=40))
@settings(max_examples=60, deadline=None)
def test_a_text_has_the_ids_that_it_always_has(kind: str, text: str) -> None:
    """Those of the tokenizer, whatever was saved with it; and they are that text again."""
    assume(not any(mark in text for mark in SPECIAL))
    tokens = CODECS[kind].encode(text)
    assert list(tokens) == plain_ids(KINDS[kind], text)
    assert CODECS[kind].decode(tokens) == KINDS[kind].decode(tokens, skip_special_tokens=False)
    if kind == "byte level":
        assert CODECS[kind].decode(tokens) == text


@pytest.mark.parametrize("kind", KINDS)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_text_never_has_a_control_token(kind: str, pieces: list[str]) -> None:
    """Whoever wrote it; as when a user says it."""
    text, tokenizer = "".join(pieces), KINDS[kind]
    marks = {tokenizer.token_to_id(mark) for mark in SPECIAL[1:]}
    tokens = CODECS[kind].encode(text)
    assert not marks & set(tokens)
    if kind == "byte level":
        assert CODECS[kind].decode(tokens) == text


def test_a_trusted_text_has_control_tokens() -> None:
    """With the flag, and only then."""
    end = KINDS["byte level"].token_to_id("<|im_end|>")
    assert end not in codec().encode("a<|im_end|>")
    assert codec(trust=True).encode("a<|im_end|>")[-1] == end


@pytest.mark.parametrize("template", [None, CHATML])
def test_what_a_tokenizer_puts_around_a_text(template: str | None) -> None:
    """All of it where it is asked for, also around what looks like a control token."""
    tokenizer = Tokenizer.from_str(KINDS["byte level"].to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    found = codec(tokenizer, template)
    for text in ("", "a seat", "席"):
        assert list(found.encode(text)) == tokenizer.encode(text).ids
        assert list(found.encode(text, special=False)) == plain_ids(tokenizer, text)
    around = found.encode("</s>")
    assert (around[0], around[-1]) == (0, 1)
    assert 1 not in around[1:-1]
    assert found.decode(around) == "<s></s></s>"


def test_ids_that_are_no_token_have_no_text() -> None:
    """As large as they may be."""
    assert codec().decode([2**32 - 1, *codec().encode("a"), 100_000]) == "a"


# ---- Back to text


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.sampled_from("a席seat é🎉\n<|"), max_size=30))
@settings(max_examples=80, deadline=None)
def test_the_bytes_of_a_texts_tokens_are_the_text(kind: str, text: str) -> None:
    """Whatever a character was cut into; SentencePiece's kinds put a blank before a text."""
    assume(not any(mark in text for mark in SPECIAL))
    bytes_of = TokenBytes.of(KINDS[kind])
    joined = b"".join(map(bytes_of, plain_ids(KINDS[kind], text)))
    if kind == "byte level":
        assert joined == text.encode()
    elif kind == "byte fallback":
        assert joined in (text.encode(), f" {text}".encode())
    else:  # a unigram says <s> for what it does not know
        assert joined.replace(b"<s>", b"").decode() in {*letters_of(text)}


def letters_of(text: str) -> Iterator[str]:
    """The text with and without a blank before it, less what a unigram may not know."""
    known = "".join(letter for letter in text if letter in "a席seat \n<|")
    yield from (known, f" {known}", text, f" {text}")


def test_the_bytes_of_marks_and_of_ids_that_are_none() -> None:
    """A mark is what it looks like; an id beyond the vocabulary is nothing."""
    for tokenizer in KINDS.values():
        bytes_of = TokenBytes.of(tokenizer)
        assert [bytes_of(tokenizer.token_to_id(mark)) for mark in SPECIAL] == [
            mark.encode() for mark in SPECIAL
        ]
        assert bytes_of(tokenizer.get_vocab_size() + 7) == b""


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_ids_can_be_said(kind: str, data: st.DataObject) -> None:
    """A model may say anything: no sequence of ids raises, and a valid text is said whole."""
    tokenizer = KINDS[kind]
    ids = st.integers(0, tokenizer.get_vocab_size() + 3)
    decoder = IncrementalDecoder(tokenizer)
    for token in data.draw(st.lists(ids, max_size=40)):
        decoder.push(token)
    decoder.flush()
    text = data.draw(st.text(st.sampled_from("a席seat e\n"), max_size=20))
    decoder, tokens = IncrementalDecoder(tokenizer), plain_ids(tokenizer, text)
    said = "".join(decoder.push(token) for token in tokens) + decoder.flush()
    assert said == tokenizer.decode(tokens)


def test_an_invalid_run_of_bytes_goes_on() -> None:
    """Where the library raises: a newline that a broken character would take back."""
    tokenizer = KINDS["byte fallback"]
    names = ["<0x0A>", "<0xE3>", "a", "<0xE3>", "<0x81>", "<0x82>", "s", *["<0xFF>"] * 30, "e"]
    decoder = IncrementalDecoder(tokenizer)
    said = "".join(decoder.push(tokenizer.token_to_id(name)) for name in names) + decoder.flush()
    assert said.startswith("\n\ufffd")
    assert "あs" in said
    assert said.endswith("\ufffde")
    assert len(decoder._pending) == 0
