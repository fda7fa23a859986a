"""The ways in which models write calls: how each is read, marked and framed; and which is whose."""

from __future__ import annotations

import re
from typing import Protocol

from attrs import frozen

from chatstream_trio.text.answers import deepseek, gemma, harmony, llama, mistral
from chatstream_trio.text.answers.calls import Calls
from chatstream_trio.text.answers.reasoning import MARKS, Marks
from chatstream_trio.text.answers.source import Source, Steps
from chatstream_trio.text.answers.tagged import FUNCTION, read_tagged


class ReadCalls(Protocol):
    """Reads an answer with calls in it, to its end."""

    def __call__(self, source: Source, calls: Calls) -> Steps[None]: ...


@frozen
class Frame:
    """What stands around the arguments of calls, which are JSON."""

    head: str
    """Before a call's arguments; ``%s`` is its name."""
    tail: str = ""
    before: str = ""
    """Before the first call."""
    between: str = "\n"
    after: str = ""
    """Behind the last call."""


@frozen
class Format:
    """A way to write calls."""

    read: ReadCalls
    frame: Frame
    """How a call is written where a grammar demands one."""
    marks: tuple[str, ...] = ()
    """What may be special tokens in it: the first announces a call. None: nothing does."""
    short_ids: bool = False
    """Whether ids of calls have to be short."""
    several: bool = True
    """Whether an answer may have several calls."""

    @property
    def texts(self) -> tuple[str, ...]:
        """All that it writes, but for names and arguments."""
        frame = self.frame
        return (frame.before, frame.head, frame.between, frame.tail, frame.after, *self.marks)


def _tagged(open_: str, close: str, *, newline: str = "\n", others: tuple[str, ...] = ()) -> Format:
    head = f'{open_}{newline}{{"name": "%s", "arguments": '
    return Format(
        lambda source, calls: read_tagged((open_, *others), close, source, calls),
        Frame(head, f"}}{newline}{close}"),
        (open_, close),
    )


def _listed(open_: str, close: str) -> Format:
    return Format(
        lambda source, calls: read_tagged((open_,), close, source, calls),
        Frame('{"name": "%s", "arguments": ', "}", f"{open_}[", ", ", f"]{close}"),
        (open_, close),
    )


def _gemma(notation: gemma.Notation) -> Format:
    frame = Frame(f"{notation.open}call:%s", notation.close, between="")
    return Format(notation.read, frame, (notation.open, notation.close, notation.quote))


HERMES = _tagged("<tool_call>", "</tool_call>")
"""Of Hermes and Qwen; and of models that are told how to call, as they have no way of their own."""

_MISTRAL_MARKS = (mistral.CALLS, mistral.ARGS, mistral.CALL_ID)
_DEEPSEEK_MARKS = (
    deepseek.CALLS,
    deepseek.CALLS_END,
    deepseek.CALL,
    deepseek.CALL_END,
    deepseek.SEPARATOR,
)
_HARMONY_MARKS = (harmony.CHANNEL, harmony.START, harmony.MESSAGE, harmony.END)
_DEEPSEEK_FRAME = Frame(
    f"{deepseek.CALL}%s{deepseek.SEPARATOR}",
    deepseek.CALL_END,
    before=deepseek.CALLS,
    between="",
    after=deepseek.CALLS_END,
)

FORMATS: dict[str, Format] = {
    "hermes": HERMES,
    "qwen3_coder": _tagged("<tool_call>", "</tool_call>", others=(FUNCTION,)),
    "llama3_json": Format(
        llama.read_llama,
        Frame('{"name": "%s", "parameters": ', "}", between="; "),
        (llama.PYTHON_TAG,),
    ),
    "mistral": Format(
        mistral.read_mistral,
        Frame('{"name": "%s", "arguments": ', "}", f"{mistral.CALLS}[", ", ", "]"),
        _MISTRAL_MARKS,
        short_ids=True,
    ),
    "mistral_named": Format(
        mistral.read_mistral,
        Frame(f"{mistral.CALLS}%s{mistral.ARGS}", between=""),
        _MISTRAL_MARKS,
        short_ids=True,
    ),
    "gpt_oss": Format(
        harmony.read_harmony,
        Frame(
            f"{harmony.CHANNEL}commentary to={harmony.TOOL}%s {harmony.CONSTRAIN}json"
            f"{harmony.MESSAGE}"
        ),
        (*_HARMONY_MARKS, harmony.CALL, harmony.RETURN, harmony.CONSTRAIN),
        several=False,
    ),
    "deepseek_v3": Format(
        deepseek.read_deepseek,
        Frame(
            f"{deepseek.CALL}function{deepseek.SEPARATOR}%s\n{deepseek.FENCE}\n",
            f"\n{deepseek.FENCE_END}{deepseek.CALL_END}",
            before=deepseek.CALLS,
            after=deepseek.CALLS_END,
        ),
        _DEEPSEEK_MARKS,
    ),
    "deepseek_v31": Format(deepseek.read_deepseek, _DEEPSEEK_FRAME, _DEEPSEEK_MARKS),
    "gemma4": _gemma(gemma.GEMMA_4),
    "functiongemma": _gemma(gemma.FUNCTION_GEMMA),
    "phi4_mini_json": _listed("<|tool_call|>", "<|/tool_call|>"),
    "jamba": _listed("<tool_calls>", "</tool_calls>"),
}
FORMATS |= {
    alias: FORMATS[name]
    for alias, name in (
        ("openai", "gpt_oss"),
        ("qwen3_xml", "qwen3_coder"),
        ("granite", "phi4_mini_json"),
    )
}
"""By name, as ``--tool-parser`` takes it: vLLM's names, where it has one."""

HARMONY = FORMATS["gpt_oss"]

_SIGNS: tuple[tuple[str, str], ...] = (
    # What only a template of that format has in it; the first that is found.
    ("gpt_oss", r"<\|channel\|>[\s\S]*<\|message\|>|<\|message\|>[\s\S]*<\|channel\|>"),
    ("gemma4", r"<\|tool_call>"),
    ("functiongemma", r"<start_function_call>"),
    ("deepseek_v3", r"<｜tool▁call▁begin｜>[\s\S]*```json"),
    ("deepseek_v31", r"<｜tool▁call▁begin｜>"),
    ("mistral_named", r"\[TOOL_CALLS\][\s\S]*\[ARGS\]"),
    ("mistral", r"\[TOOL_CALLS\]"),
    ("qwen3_coder", r"<tool_call>[\s\S]*<function="),
    ("hermes", r"<tool_call>"),
    ("phi4_mini_json", r"<\|tool_call\|>"),
    ("jamba", r"<tool_calls>"),
    ("llama3_json", r"<\|python_tag\|>|\\?\"parameters\\?\": (?:dictionary|\\?['\"])"),
)


def find_format(template: str) -> Format | None:
    """The format in which a chat template's source has the calls of earlier answers."""
    return next((FORMATS[name] for name, sign in _SIGNS if re.search(sign, template)), None)


def find_marks(template: str) -> Marks | None:
    """The marks that a chat template's source has around what a model says to itself."""
    found = (m for m in MARKS.values() if m.close in template or m.open.strip() in template)
    return next(found, None)
