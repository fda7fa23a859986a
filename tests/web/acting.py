"""A scripted model that thinks and calls tools: it says over and over what it was told to.

``<think> hm </think> so <call:add> {"a":1} </call> END`` is what it thinks, says and calls, to its
end of sequence. Between the layers it is like any model whose template has such marks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, evolve, field, frozen
from served import House, serve_chat

from chatstream_trio import Model, ScriptedRunner, Settings
from chatstream_trio.conversation import Conversation, Message
from chatstream_trio.events import Piece, Reasoning, Text, ToolArguments, ToolCallStart
from chatstream_trio.text.codec import Prompt
from chatstream_trio.text.words import SEPARATOR, VOCAB_SIZE, WordCodec, token_id

ENDS = frozenset({token_id("END "), token_id("END\n")})


@define
class ActingParser:
    """Cuts what is said at its marks."""

    reasons: bool = field(default=False, init=False)
    _calls: int = field(default=0, init=False)
    _calling: bool = field(default=False, init=False)

    def push(self, text: str) -> Sequence[Piece]:
        """A word is a token, and a mark is a word."""
        match text.strip():
            case "<think>" | "</think>" as mark:
                self.reasons = mark == "<think>"
            case "</call>":
                self._calling = False
            case mark if mark.startswith("<call:"):
                self._calling, self._calls = True, self._calls + 1
                number = self._calls - 1
                return [ToolCallStart(number, f"call_{number}", mark[6:-1])]
            case _ if self._calling:
                return [ToolArguments(self._calls - 1, text)]
            case _:
                return [Reasoning(text) if self.reasons else Text(text)]
        return []

    def flush(self) -> Sequence[Piece]:
        """Nothing is held back."""
        return ()


@frozen
class ActingCodec(WordCodec):
    """Notes each conversation, and reads what is said in it."""

    conversations: list[Conversation]

    def read(self, said: Any, most: int | None = None) -> Prompt:
        """As words; tools and what was done with them are left out."""
        self.conversations.append(said)
        told = [Message(message.role, message.text) for message in said.messages]
        told = [Message("user", it.text) if it.role == "tool" else it for it in told]
        prompt = WordCodec.read(self, Conversation(told), most)
        return evolve(prompt, parser=ActingParser)


@define
class ActingHouse:
    """A server, and what its model was given to read."""

    house: House
    conversations: list[Conversation]


@asynccontextmanager
async def open_acting(**settings: Any) -> AsyncIterator[ActingHouse]:
    """Serve it."""
    conversations: list[Conversation] = []

    def load(progress: object) -> ScriptedRunner:
        runner = ScriptedRunner(
            rows=2, pace=0, separator=SEPARATOR, vocab_size=VOCAB_SIZE, max_model_len=1_000_000
        )
        runner.info = evolve(runner.info, eos_token_ids=ENDS)
        return runner

    model = Model("scripted", lambda: ActingCodec(conversations), load)
    chosen = Settings(**{"max_active": 2, **settings})
    async with serve_chat(chosen, model) as house:
        yield ActingHouse(house, conversations)
