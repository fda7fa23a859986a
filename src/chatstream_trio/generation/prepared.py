"""What a request comes to for one model: how long its answer may be, and the stream that it asks of
the engine. Pure."""

from __future__ import annotations

import secrets

from attrs import frozen

from chatstream_trio.engine.runner import Ability, RunnerInfo
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.errors import ContextTooLong, UnsupportedField
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
            ContextTooLong: The prompt leaves no room for an answer.
        """
        if request.sampling.logprobs is not None and Ability.LOGPROBS not in info.abilities:
            raise UnsupportedField(
                f"this model is served without {Ability.LOGPROBS.value}", param="logprobs"
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
            resolve(request.sampling, info.sampling, seed=secrets.randbits(63)),
            eos | request.stop_token_ids | stop_tokens,
        )
        return cls(prompt, spec)
