"""What a request comes to for one model: how long its answer may be, and the stream that it asks of
the engine. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from itertools import chain

from attrs import evolve, frozen

from chatstream_trio.engine.runner import Ability, RunnerInfo
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.errors import ContextTooLong, InvalidRequest, UnsupportedField
from chatstream_trio.grammars.grammar import Grammar
from chatstream_trio.request import Request, SamplingOptions, resolve
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
            InvalidRequest: A token is named that the model lacks, or none is left to begin with; or
                nothing would end an answer that is held to a grammar.
            ContextTooLong: The prompt leaves no room for an answer.
        """
        grammar = prompt.grammar
        _check_abilities(request, grammar, info)
        _check_ids(request.sampling.allowed_token_ids or (), "allowed_token_ids", info)
        _check_ids(chain.from_iterable(prompt.bad_words), "bad_words", info)
        if grammar is not None:
            _check_end(request, grammar)
        eos = frozenset() if request.ignore_eos else info.eos_token_ids
        stops = eos | request.stop_token_ids | stop_tokens
        _check_rest(request.sampling, prompt, stops)
        room = info.max_model_len - len(prompt.tokens)
        if room < (request.pool is None):
            raise ContextTooLong(
                f"the model's maximum context length is {info.max_model_len} tokens; "
                f"the prompt has {len(prompt.tokens)}",
                param=request.param,
            )
        spec = StreamSpec(
            0,
            prompt.tokens,
            _most(request, room),
            evolve(
                resolve(
                    request.sampling,
                    info.sampling,
                    seed=secrets.randbits(63),
                    bad_words=prompt.bad_words,
                ),
                grammar=grammar,
            ),
            stops,
            pool=request.pool,
            prompt_logprobs=request.prompt_logprobs,
        )
        return cls(prompt, spec)


def _check_rest(sampling: SamplingOptions, prompt: Prompt, stops: frozenset[int]) -> None:
    """Refuse what leaves no first token. What leaves none later on, nobody knows before."""
    if sampling.allowed_token_ids is not None:
        shut = {word[0] for word in prompt.bad_words if len(word) == 1}
        if sampling.min_tokens:
            shut |= stops
        if shut.issuperset(sampling.allowed_token_ids):
            raise InvalidRequest(
                "none of the allowed tokens may come: all are bad words, or would end the answer"
                " before its least",
                param="allowed_token_ids",
            )


def _most(request: Request, room: int) -> int:
    """Tokens of the answer; none behind a prompt that becomes a vector."""
    if request.pool is not None:
        return 0
    return room if request.max_tokens is None else min(room, request.max_tokens)


def _check_end(request: Request, grammar: Grammar) -> None:
    """Refuse what would keep an answer from its end when its grammar has come to one."""
    for param, asked in (
        ("ignore_eos", request.ignore_eos),
        ("min_tokens", request.sampling.min_tokens),
    ):
        if asked:
            raise InvalidRequest(
                f"with {param}, nothing may end an answer that is held to {grammar.param}",
                param=param,
            )


def _check_abilities(request: Request, grammar: Grammar | None, info: RunnerInfo) -> None:
    for ability, param, asked in (
        (Ability.GRAMMAR, grammar.param if grammar else "grammar", grammar),
        (Ability.LOGPROBS, "logprobs", request.sampling.logprobs),
        (Ability.PROMPT_LOGPROBS, "prompt_logprobs", request.prompt_logprobs),
        (Ability.POOL, request.param, request.pool),
    ):
        if asked is not None and ability not in info.abilities:
            raise UnsupportedField(f"this model is served without {ability.value}", param=param)


def _check_ids(ids: Iterable[int], param: str, info: RunnerInfo) -> None:
    if not all(0 <= id < info.vocab_size for id in ids):
        raise InvalidRequest(f"a token id must be from 0 to {info.vocab_size - 1}", param=param)
