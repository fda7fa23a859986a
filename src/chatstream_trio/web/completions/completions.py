"""OpenAI's completions, as a dialect: what comes after a text, or after tokens, as they are.

The older API; editors complete with it, and whoever measures models. The field names are those of
https://platform.openai.com/docs/api-reference/completions/create.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.events import total
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.request import CompletionRequest
from chatstream_trio.web.bodies.reading import Foreign
from chatstream_trio.web.completions.chunks import CompletionChunks, Echo, OldLogprobs
from chatstream_trio.web.dialect import Given, Head, Whole
from chatstream_trio.web.errors import ErrorReply
from chatstream_trio.web.openai.body import MOST_LOGPROBS, GenerationBody, parse
from chatstream_trio.web.openai.chunks import FINISH_REASONS, prompt_logprobs_json, usage_json
from chatstream_trio.web.openai.foreign import CHANGES_NOTHING, HABITS

DEFAULT_MAX_TOKENS = 16
"""Of an answer, where the request does not say: OpenAI's."""
MOST_PROMPTS = 2048
"""In one request, before their number is held against that of the seats."""

_OURS = ("add_special_tokens", "best_of", "logprobs")


class CompletionBody(GenerationBody, frozen=True, kw_only=True):
    """The body of ``POST /v1/completions``."""

    foreign = Foreign(
        {
            **{name: fine for name, fine in CHANGES_NOTHING.items() if name not in _OURS},
            "add_special_tokens": lambda value: value is True,
        },
        HABITS,
    )
    prompt: str | list[str | int | list[int]]
    """A text or tokens; or a list of either, each with answers of its own."""
    logprobs: int | None = None
    """How many of the likeliest tokens are named at each place."""
    echo: bool | None = None
    """Whether the prompt is said before the answer."""
    best_of: int | None = None
    suffix: str | None = None

    def prompts(self) -> list[str | tuple[int, ...]]:
        """Each of them.

        Raises:
            InvalidRequest: There is none, or they are of several kinds.
        """
        given = self.prompt
        if isinstance(given, str):
            return [given]
        if not given:
            raise InvalidRequest("prompt must not be empty", param="prompt")
        if all(isinstance(it, int) for it in given):
            return [tuple(it for it in given if isinstance(it, int))]
        if len(given) > MOST_PROMPTS:
            raise InvalidRequest(f"at most {MOST_PROMPTS} prompts", param="prompt")
        texts = [it for it in given if isinstance(it, str)]
        tokens = [tuple(it) for it in given if isinstance(it, list)]
        if len(given) not in (len(texts), len(tokens)):
            raise InvalidRequest("prompts are texts or lists of tokens, not both", param="prompt")
        return [*texts, *tokens]

    def to_requests(self, given: Given) -> list[CompletionRequest]:
        """What the service is asked: one for each prompt.

        Raises:
            InvalidRequest: A value is out of range, or cannot be done.
        """
        if self.suffix:
            raise UnsupportedField(
                "this server does not know how the model fills in the middle: write its own marks"
                " into the prompt",
                param="suffix",
            )
        if self.best_of is not None and self.best_of != self.number():
            raise UnsupportedField(
                "as many answers are given as are made: best_of must be n", param="best_of"
            )
        common = self.common(given.vocab_size, given.timeouts)
        if self.echo and self.logprobs is not None:
            if self.stream:
                raise InvalidRequest(
                    "the likelihoods of a prompt are told whole: not with stream: true",
                    param="logprobs",
                )
            common["prompt_logprobs"] = self.logprobs
        requests = []
        for at, prompt in enumerate(self.prompts()):
            if isinstance(prompt, tuple) and not all(0 <= id < given.vocab_size for id in prompt):
                place = "prompt" if isinstance(self.prompt[0], int) else f"prompt[{at}]"
                raise InvalidRequest(
                    f"a token id must be from 0 to {given.vocab_size - 1}", param=place
                )
            requests.append(CompletionRequest(prompt, **common))
        return requests

    @property
    def says_nothing(self) -> bool:
        """Whether only the prompt is of interest."""
        return self.max_tokens == 0

    def _max_tokens(self) -> int | None:
        if self.max_tokens is None:
            return DEFAULT_MAX_TOKENS
        return 1 if self.says_nothing else super()._max_tokens()

    def _logprobs(self) -> int | None:
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise InvalidRequest(
                f"logprobs must be between 0 and {MOST_LOGPROBS}", param="logprobs"
            )
        return self.logprobs


@frozen
class CompletionCall:
    """A body of ``POST /v1/completions`` that was read."""

    requests: Sequence[CompletionRequest]
    choices: int
    stream: bool
    include_usage: bool
    continuous_usage: bool
    include_queue: bool
    logprobs: bool
    echo: Echo
    """What is said before each answer."""
    says_nothing: bool
    prompt_logprobs: bool

    def whole(self, head: Head, answers: Sequence[Whole]) -> dict[str, Any]:
        """A ``text_completion``."""
        usage = usage_json(total([answer.usage for answer in answers], self.choices))
        if self.says_nothing:
            usage |= {"completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
        return {
            "id": head.id,
            "object": "text_completion",
            "created": head.created,
            "model": head.model,
            "system_fingerprint": head.fingerprint,
            "choices": [self._choice(index, answers) for index in range(len(answers))],
            "usage": usage,
        }

    def _choice(self, index: int, answers: Sequence[Whole]) -> dict[str, Any]:
        answer = answers[index]
        of_prompt = answers[index - index % self.choices].of_prompt
        before = self.echo.before(index)
        logprobs = OldLogprobs()
        if self.logprobs:
            if before is not None and of_prompt is not None:
                logprobs.take_prompt(before, of_prompt())
            if not self.says_nothing:
                logprobs.take(answer.logprobs)
        choice = {
            "index": index,
            "text": (before or "") + ("" if self.says_nothing else answer.text),
            "logprobs": logprobs.json() if self.logprobs else None,
            "finish_reason": "length" if self.says_nothing else FINISH_REASONS[answer.reason],
            "stop_reason": None if self.says_nothing else answer.stop,
        }
        if self.prompt_logprobs and of_prompt is not None:
            choice["prompt_logprobs"] = prompt_logprobs_json(of_prompt)
        return choice

    def chunks(self, head: Head, answers: Chorus) -> CompletionChunks:
        """``text_completion`` after ``text_completion``."""
        return CompletionChunks(
            answers,
            head,
            choices=self.choices,
            include_usage=self.include_usage,
            continuous_usage=self.continuous_usage,
            include_queue=self.include_queue,
            logprobs=self.logprobs,
            echo=self.echo,
            says_nothing=self.says_nothing,
        )


class Completions:
    """See :class:`~chatstream_trio.web.dialect.Dialect`."""

    def new_id(self) -> str:
        """``cmpl-`` and 24 hex digits."""
        return f"cmpl-{secrets.token_hex(12)}"

    def parse(self, body: bytes, given: Given, walk: Walk) -> CompletionCall:
        """Read a body of ``POST /v1/completions``."""
        said = parse(CompletionBody, body, walk, given.unknown)
        given.names.check(said.model)
        requests = said.to_requests(given)
        choices = said.number()
        options = said.stream_options
        texts = [_text(it.prompt, given) for it in requests] if said.echo else []
        return CompletionCall(
            requests,
            choices,
            stream=bool(said.stream),
            include_usage=bool(options and options.include_usage),
            continuous_usage=bool(options and options.continuous_usage_stats),
            include_queue=bool(options and options.include_queue),
            logprobs=said.logprobs is not None,
            echo=Echo(texts, choices),
            says_nothing=said.says_nothing,
            prompt_logprobs=said.prompt_logprobs is not None,
        )

    def error(self, reply: ErrorReply) -> Any:
        """``{"error": {…}}``, as all of OpenAI's."""
        return reply.body


def _text(prompt: str | tuple[int, ...], given: Given) -> str:
    if isinstance(prompt, str):
        return prompt
    try:
        return given.decode(prompt)
    except UnsupportedField as error:
        raise UnsupportedField(error.message, param="prompt") from None
