"""An answer is only ever added to: whoever reads it, whenever, reads the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatstream_trio.conversation import Conversation, Message
from chatstream_trio.errors import StreamFault
from chatstream_trio.events import Finished, FinishReason, Text, Usage
from chatstream_trio.text.answer import Answer, Transcript
from chatstream_trio.text.words import WordCodec, token_id

END = Finished(FinishReason.STOP, Usage(1, 2))


@given(
    st.lists(st.one_of(st.text("ab", max_size=2), st.integers(0, 2)), max_size=40),
    st.integers(0, 40),
)
def test_every_reader_gets_every_event(actions: list[str | int], late: int) -> None:
    """Law 13: readers that read now and then, one from a position on, and one after the end: the
    same texts in the same order, and the end once."""
    answer = Answer()
    positions, heard = [0, 0, 0], ["", "", ""]
    said: list[str] = []
    for action in actions:
        if isinstance(action, str):
            answer.say(*([Text(action)] if action else []))
            said += [action] if action else []
        else:
            event, positions[action] = answer.read(positions[action])
            heard[action] += event.text if isinstance(event, Text) else ""
            assert heard[action] == "".join(said)
    answer.finish(END)
    assert len(answer) == len(said) + 1
    for reader in range(3):
        event, position = answer.read(positions[reader])
        if isinstance(event, Text):
            heard[reader] += event.text
            event, position = answer.read(position)
        assert (event, heard[reader]) == (END, "".join(said))
        assert answer.read(position) == (None, len(said) + 1)
    event, _ = answer.read(min(late, len(said)))
    assert event == (Text("".join(said[late:])) if late < len(said) else END)


def test_it_ends_once() -> None:
    """What comes after the end, in whatever way it came, changes nothing."""
    for end in (
        lambda answer: answer.finish(END),
        lambda answer: answer.fail(StreamFault("broken")),
        lambda answer: answer.cut(),
    ):
        answer = Answer()
        answer.say(Text("a"))
        end(answer)
        before = (len(answer), answer.finished, answer.error)
        answer.say(Text("b"))
        answer.finish(Finished(FinishReason.LENGTH, Usage(0, 0)))
        answer.fail(StreamFault("again"))
        answer.cut()
        assert (len(answer), answer.finished, answer.error) == before
        assert answer.ended


@pytest.mark.parametrize(
    ("stops", "text", "stopped"),
    [
        ((), "a b c ", False),
        (("b c",), "a ", True),
        (("c d",), "a b c ", False),
        (("a",), "", True),
    ],
)
def test_tokens_become_text_up_to_a_stop_string(
    stops: tuple[str, ...], text: str, stopped: bool
) -> None:
    """What might begin a stop string is held back, and comes in the end if it was none."""
    prompt = WordCodec().read(Conversation([Message("user", "a b c")]))
    transcript = Transcript.of(prompt, stops)
    pieces = [piece for word in "abc" for piece in transcript.push(token_id(f"{word} "))]
    pieces += transcript.flush()
    assert "".join(piece.text for piece in pieces) == text
    assert transcript.stopped is stopped
