"""What a request comes to for one model: how long its answer may be, and the stream that it asks of
the engine. Pure."""

from __future__ import annotations

import secrets

from attrs import evolve, frozen

from chatstream_trio.engine.runner import Ability, RunnerInfo
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.errors import ContextTooLong, InvalidRequest, UnsupportedField
from chatstream_trio.request import Request, resolve
from chatstream_trio.text.codec import Prompt


@frozen
class Prepared:
    """A request whose prompt was measured, and fits."""

    prompt: Prompt
    spec: StreamSpec
    """The engine gives it its number."""

    @classmethod
    def of(
        cls, request: Request, prompt: Prompt, stop_tokens: frozenset[int], info: RunnerInfo
    ) -> Prepared:
        """Prepare it for the model that ``info`` describes.

        Args:
            request: What is asked.
            prompt: What the model reads.
            stop_tokens: Tokens that end the answer, besides those that the request names.
            info: The model.

        Raises:
            UnsupportedField: The model's runner cannot do what is asked.
            InvalidRequest: Nothing would end an answer that is held to a grammar.
            ContextTooLong: The prompt leaves no room for an answer.
        """
        if request.sampling.logprobs is not None and Ability.LOGPROBS not in info.abilities:
            raise UnsupportedField(
                f"this model is served without {Ability.LOGPROBS.value}", param="logprobs"
            )
        grammar = prompt.grammar or request.grammar
        if grammar is not None and Ability.GRAMMAR not in info.abilities:
            raise UnsupportedField(
                f"this model is served without {Ability.GRAMMAR.value}", param=grammar.param
            )
        if grammar is not None and request.ignore_eos:
            raise InvalidRequest(
                f"with ignore_eos, nothing ends an answer that is held to {grammar.param}",
                param="ignore_eos",
            )
        room = info.max_model_len - len(prompt.tokens)
        if room < 1:
            raise ContextTooLong(
                f"the model's maximum context length is {info.max_model_len} tokens; "
                f"the prompt has {len(prompt.tokens)}",
                param=request.param,
            )
        eos = frozenset() if request.ignore_eos else info.eos_token_ids
        spec = StreamSpec(
            0,
            prompt.tokens,
            room if request.max_tokens is None else min(room, request.max_tokens),
            evolve(
                resolve(request.sampling, info.sampling, seed=secrets.randbits(63)),
                grammar=grammar,
            ),
            eos | request.stop_token_ids | stop_tokens,
        )
        return cls(prompt, spec)
