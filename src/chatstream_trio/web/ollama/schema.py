"""Ollama's requests as structs, and what they ask for.

The field names are those of https://github.com/ollama/ollama/blob/main/docs/api.md. What there is
to say when a model is loaded (``num_ctx``, ``num_gpu``, ``keep_alive``) is accepted, and has no
effect: the one model is always there, as it was started.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.conversation import Message
from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.grammars.grammar import ANY_OBJECT, Grammar, GrammarKind
from chatstream_trio.request import (
    ChatRequest,
    CompletionRequest,
    Request,
    SamplingOptions,
    Timeouts,
)
from chatstream_trio.web.bodies.reading import Foreign, Harmless, Wire
from chatstream_trio.web.ollama.history import AnyMessage, to_messages
from chatstream_trio.web.openai.body import MOST_LOGPROBS
from chatstream_trio.web.openai.tools import ToolBody
from chatstream_trio.web.timeouts import TimeoutsBody

Think: TypeAlias = bool | Literal["low", "medium", "high", "max"]


def _anything(value: Any) -> bool:
    return True


_AT_LOAD = (
    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "numa", "low_vram"),
    *("f16_kv", "logits_all", "vocab_only", "use_mmap", "use_mlock", "embedding_only"),
    *("draft_num_predict", "penalize_newline", "repeat_last_n", "mirostat_tau", "mirostat_eta"),
)
_LABELS: Mapping[str, Harmless] = dict.fromkeys(("keep_alive", "truncate", "shift"), _anything)


class Options(Wire, frozen=True):
    """How the answer is chosen."""

    foreign = Foreign(
        {
            "mirostat": lambda value: value == 0,
            "tfs_z": lambda value: value == 1,
            "typical_p": lambda value: value == 1,
        },
        dict.fromkeys(_AT_LOAD, _anything),
    )
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    num_predict: int | None = None
    """Tokens of the answer at most; none, or fewer than one: what the context leaves."""
    stop: str | list[str] | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None

    def common(self, logprobs: int | None) -> dict[str, Any]:
        """The fields of what the service is asked."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        most = self.num_predict
        return {
            "max_tokens": None if most is None or -2 <= most < 1 else most,
            "sampling": SamplingOptions(
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=None if self.top_k == -1 else self.top_k,
                min_p=self.min_p,
                seed=None if self.seed == -1 else self.seed,
                repetition_penalty=self.repeat_penalty,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
                logprobs=logprobs,
            ),
            "stop": tuple(text for text in stop if text),
        }


class OllamaBody(Wire, frozen=True, kw_only=True):
    """What both bodies have in common."""

    model: str | None = None
    stream: bool | None = None
    """Unless it is false, the answer comes in lines."""
    format: str | dict[str, Any] | None = None
    """``json``, or a JSON Schema."""
    options: Options | None = None
    think: Think | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    timeouts: TimeoutsBody | None = None
    """Ours: seconds that each phase may take."""

    def asked(self, timeouts: Timeouts, walk: Walk = iter) -> Request | None:
        """What the service is asked; None: only whether the model is there.

        Args:
            timeouts: What the headers say; the shorter of theirs and the body's counts.
            walk: Goes through what a client may have made long.

        Raises:
            InvalidRequest: A value is out of range.
            UnsupportedField: It asks for what cannot be done here.
        """
        raise NotImplementedError

    def _common(self, timeouts: Timeouts) -> dict[str, Any]:
        asked = self.timeouts.to_timeouts() if self.timeouts else Timeouts()
        options = self.options or Options()
        return {
            **options.common(self._logprobs()),
            "timeouts": asked.under(timeouts),
            "grammar": self._grammar(),
        }

    def _logprobs(self) -> int | None:
        most = self.top_logprobs or 0
        if not 0 <= most <= MOST_LOGPROBS:
            raise InvalidRequest(
                f"top_logprobs must be between 0 and {MOST_LOGPROBS}", param="top_logprobs"
            )
        return most if self.logprobs or most else None

    def _grammar(self) -> Grammar | None:
        if self.format is None or self.format == "":
            return None
        if isinstance(self.format, dict):
            schema = json.dumps(self.format, ensure_ascii=False)
        elif self.format == "json":
            schema = ANY_OBJECT
        else:
            raise InvalidRequest('format is "json" or a JSON Schema', param="format")
        return Grammar(GrammarKind.JSON_SCHEMA, schema, "format")

    def _thinking(self) -> dict[str, Any]:
        """How templates are told of it: they have a switch, or know levels."""
        if self.think is None:
            return {}
        switch = bool(self.think)
        level = {} if isinstance(self.think, bool) else {"reasoning_effort": self.think}
        return {"enable_thinking": switch, "thinking": switch, **level}


class ChatBody(OllamaBody, frozen=True, kw_only=True):
    """The body of ``POST /api/chat``."""

    foreign = Foreign({}, _LABELS)
    messages: list[AnyMessage] | None = None
    tools: list[ToolBody] | None = None

    def asked(self, timeouts: Timeouts, walk: Walk = iter) -> ChatRequest | None:
        """See :meth:`OllamaBody.asked`: without messages there is nothing to answer."""
        common = self._common(timeouts)
        if not self.messages:
            return None
        messages = to_messages(self.messages, walk)
        last = messages[-1]
        return ChatRequest(
            messages,
            continue_final=last.role == "assistant" and bool(last.text) and not last.tool_calls,
            tools=tuple(tool.to_tool() for tool in walk(self.tools or ())),
            template_options=self._thinking(),
            **common,
        )


class GenerateBody(OllamaBody, frozen=True, kw_only=True):
    """The body of ``POST /api/generate``."""

    foreign = Foreign(
        dict.fromkeys(
            ("images", "template", "context", "width", "height", "steps"),
            lambda value: value in ("", [], 0),
        ),
        _LABELS,
    )
    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    """Whether the prompt is what the model reads, and no person's message."""
    suffix: str | None = None

    def asked(self, timeouts: Timeouts, walk: Walk = iter) -> Request | None:
        """See :meth:`OllamaBody.asked`: without a prompt there is nothing to answer."""
        if self.suffix:
            raise UnsupportedField(
                "a text is not filled in by itself here: write the model's own tokens for that"
                " into a prompt that is raw",
                param="suffix",
            )
        common = self._common(timeouts)
        if not self.prompt:
            return None
        if self.raw and self.system:
            raise InvalidRequest("a raw prompt has no place for it", param="system")
        if self.raw:
            return CompletionRequest(prompt=self.prompt, **common)
        said = [Message("system", self.system)] if self.system else []
        return ChatRequest(
            [*said, Message("user", self.prompt)],
            template_options=self._thinking(),
            **common,
        )
