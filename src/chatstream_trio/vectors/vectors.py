"""What a service does besides answers: vectors, of the model that it serves or of a second one.

A second model has seats and an engine of its own, and shares the rest with the first: ids, the
threads of the side, the end. A service is one of these.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio
from attrs import evolve

from chatstream_trio.aside.pauses import with_pauses
from chatstream_trio.engine.runner import Ability, Pooling, RunnerInfo
from chatstream_trio.errors import (
    ChatStreamError,
    ContextTooLong,
    InvalidRequest,
    ModelNotServed,
    UnsupportedField,
)
from chatstream_trio.generation.generation import Generation
from chatstream_trio.house import House
from chatstream_trio.models import Model
from chatstream_trio.request import CompletionRequest, Timeouts
from chatstream_trio.settings import Settings
from chatstream_trio.text.codec import Codec, Prompt
from chatstream_trio.vectors.batch import Batch

SEATS = 32
"""Texts of which a second model makes vectors at once."""
NO_TIMEOUTS = Timeouts()
CHUNK = 2048
"""Tokens that it reads in a turn, about: what is cancelled is gone after so many."""


def settings_of_embedder(settings: Settings) -> Settings:
    """Those by which a second model is served."""
    return evolve(
        settings,
        served_model_name=(),
        max_active=SEATS,
        max_active_per_key=None,
        prefill_chunk=CHUNK,
        speculate=0,
    )


class Vectors(House):
    """A house that also makes vectors."""

    embedder: Vectors | None = None
    """The second model, where there is one."""

    @property
    def seconds(self) -> Sequence[House]:
        """The second model, as a list."""
        return () if self.embedder is None else (self.embedder,)

    async def _run(self, after: Vectors | None = None) -> None:
        """Deal seats, and keep the model. One is loaded after the other: transformers cannot be
        imported by two threads at once."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._admission.deal)
            if after is not None:
                with suppress(ChatStreamError):
                    await after._keeper.ready()
            nursery.start_soon(self._keeper.run, self._load_codec)

    def _add(self, model: Model, *, threaded: bool, weights: Mapping[str, float] | None) -> None:
        """Have a second model, and load it when the first one is there."""
        self.embedder = Vectors(
            settings_of_embedder(self.settings),
            model,
            lambda _: None,
            self._nursery,
            threaded=threaded,
            weights=weights,
            host=self,
        )
        self._nursery.start_soon(self.embedder._run, self)

    def embedder_for(self, name: str | None) -> Vectors:
        """Whose vectors are meant by a name; the second model's, where none is named.

        Raises:
            ModelNotServed: It is nobody's.
        """
        other = self.embedder
        if other is None:
            self.names.check(name)
            return self
        if name is None or name in other.names.said:
            return other
        if name in self.names.said:
            return self
        if self.names.any:
            return other
        raise ModelNotServed(
            f"the model {name[:200]!r} is not served here; {other.model_id!r} and"
            f" {self.model_id!r} are",
            param="model",
        )

    @asynccontextmanager
    async def embed(
        self,
        inputs: Sequence[str | tuple[int, ...]],
        *,
        pooling: Pooling | None = None,
        timeouts: Timeouts = NO_TIMEOUTS,
        id: str | None = None,
        key: str = "",
    ) -> AsyncIterator[Batch]:
        """Vectors of texts as one scope, under one id: see
        :meth:`~chatstream_trio.service.ChatStream.generate`.

        Each text takes a seat, and one of them at a time a place in the line. Leave the scope, and
        all of it is over.

        Args:
            inputs: Texts, or tokens: at least one.
            pooling: How what the model computes becomes a vector; default: as the settings say. A
                second model's own files say it, whatever is given here.
            timeouts: Of all of it.
            id: Under which it can be cancelled.
            key: Whose it is.

        Raises:
            Loading, Draining, EngineFailed: This service takes no requests at this moment.
            UnsupportedField: The model is served without this ability.
            IdInUse: Another live request has the id.
            QueueFull, TooManyForKey: All seats and places are taken, or all that a key may have.
            InvalidRequest, ContextTooLong: The model cannot read a text; ``param`` says which.
        """
        self.check()
        info = self.info
        if Ability.POOL not in info.abilities:
            raise UnsupportedField(
                f"{self.model_id!r} is served without {Ability.POOL.value}", param="model"
            )
        id = id or secrets.token_hex(12)
        self._requests.check_id(id)
        pool = pooling or Pooling(self.settings.pooling)
        if self.is_second:
            pool = Pooling.MEAN  # it reads all of a text, and knows by itself what to make of it
        make = partial(
            Generation, id=id, key=key, engine=self._engine, spacing=self._spacing, leader=None
        )
        requests = [CompletionRequest(said, pool=pool) for said in inputs]
        batch = Batch(requests, make, self._admission.enter, self._changed)
        batch.begin()
        self._requests.add(id, batch.live, lambda: batch.prompt_tokens)
        try:
            if ceilings := timeouts.under(self.settings.timeouts):
                self._nursery.start_soon(batch.phases.keep, ceilings, batch.fail)
            read = partial(_read, self.codec, requests, info)
            prompts = await self._side.run(read, size=sum(it.size for it in requests))
            batch.prepare(prompts)
            yield batch
        finally:
            batch.stop()
            self._requests.remove(id)
            self._changed()


def _read(codec: Codec, requests: Sequence[CompletionRequest], info: RunnerInfo) -> list[Prompt]:
    """The prompts, with what the model's tokenizer puts around a text.

    Raises:
        InvalidRequest, ContextTooLong: One cannot be read; ``param`` says which.
    """
    prompts = []
    for number, request in enumerate(with_pauses(requests)):
        said = request.prompt
        try:
            tokens = codec.encode(said) if isinstance(said, str) else said
            _check(tokens, info)
        except InvalidRequest as error:
            error.param = "input" if len(requests) == 1 else f"input[{number}]"
            raise
        prompts.append(Prompt(tokens, Wordless))
    return prompts


def _check(tokens: tuple[int, ...], info: RunnerInfo) -> None:
    if not tokens:
        raise InvalidRequest("to this model, there is nothing in the text")
    if len(tokens) > info.max_model_len:
        raise ContextTooLong(
            f"the model's maximum context length is {info.max_model_len} tokens; the text has"
            f" {len(tokens)}"
        )
    if not 0 <= min(tokens) <= max(tokens) < info.vocab_size:
        raise InvalidRequest(f"a token id must be from 0 to {info.vocab_size - 1}")


class Wordless:
    """The decoder of who says nothing."""

    def push(self, token: int) -> str:
        """Nothing."""
        return ""

    def flush(self) -> str:
        """Nothing."""
        return ""

    def bytes_of(self, token: int) -> bytes:
        """Nothing."""
        return b""
