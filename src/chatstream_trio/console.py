"""A chat in the terminal, against any running server. Plain synchronous: one person, one answer.

Ctrl-C while an answer comes closes its connection, which is all that the server needs to give the
seat to somebody else; what was said so far stays in the conversation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
from attrs import define, field
from rich.console import Console

from chatstream_trio.bench.chunks import DONE, EventSplitter, data_of
from chatstream_trio.errors import ChatStreamError

HELP = "Ctrl-C stops an answer, /new begins a new conversation, Ctrl-D or /exit leaves."


class ServerUnreachable(ChatStreamError):
    """There is no server, or it went away."""


class Refused(ChatStreamError):
    """The server answered with an error."""


@define
class Conversation:
    """The messages so far, and the server that they go to."""

    url: str
    system: str | None = None
    options: dict[str, Any] = field(factory=dict)
    messages: list[dict[str, str]] = field(factory=list)

    def clear(self) -> None:
        """Begin a new conversation."""
        self.messages = [{"role": "system", "content": self.system}] if self.system else []

    def ask(self, text: str, client: httpx.Client) -> Iterator[dict[str, Any]]:
        """Send a message; yield the events of the answer: chunks and queue positions.

        Close the iterator to stop the answer. The answer as far as it came joins the conversation;
        if there was none, neither does the question.

        Raises:
            Refused, ServerUnreachable: with a message for a person.
        """
        self.messages.append({"role": "user", "content": text})
        body = {
            "messages": self.messages,
            "stream": True,
            "stream_options": {"include_queue": True},
            **self.options,
        }
        answer = ""
        try:
            for event in _post(client, f"{self.url.rstrip('/')}/v1/chat/completions", body):
                answer += _text(event)
                yield event
        finally:
            if answer:
                self.messages.append({"role": "assistant", "content": answer})
            else:
                self.messages.pop()


def _post(client: httpx.Client, url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    try:
        with client.stream("POST", url, json=body) as response:
            if response.is_error:
                raise Refused(_message(response))
            splitter = EventSplitter()
            for part in response.iter_bytes():
                for data in map(data_of, splitter.feed(part)):
                    if data and data != DONE:
                        yield _read(data)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerUnreachable(f"no server answers at {url}: {error}") from None


def _read(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
        if "error" in event:
            raise Refused(event["error"]["message"])
    except (ValueError, KeyError, TypeError):
        raise ServerUnreachable(f"this is no chat: {data[:80]!r}") from None
    return dict(event)


def _message(response: httpx.Response) -> str:
    response.read()
    with suppress(ValueError, KeyError, TypeError):
        wait = response.headers.get("Retry-After")
        hint = f" (try again in {wait} s)" if wait else ""
        return f"{response.json()['error']['message']}{hint}"
    return f"the server answered {response.status_code}"


def _text(event: dict[str, Any]) -> str:
    choices = event.get("choices") or [{}]
    return choices[0].get("delta", {}).get("content") or ""


def converse(conversation: Conversation) -> int:
    """Talk until the person leaves; the value is the exit code."""
    conversation.clear()
    timeout = httpx.Timeout(10.0, read=None)
    with httpx.Client(timeout=timeout) as client:
        _greet(conversation.url, client)
        while True:
            try:
                text = input("> " if sys.stdin.isatty() else "").strip()
            except EOFError:
                return 0
            except KeyboardInterrupt:
                print(f"\n{HELP}", file=sys.stderr)
                continue
            match text:
                case "":
                    continue
                case "/exit":
                    return 0
                case "/new":
                    conversation.clear()
                case _:
                    _answer(conversation, text, client)


def _greet(url: str, client: httpx.Client) -> None:
    try:
        models = client.get(f"{url.rstrip('/')}/v1/models").json()
        name = models["data"][0]["id"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, IndexError, TypeError) as e:
        raise ServerUnreachable(f"no server answers at {url}: {e}") from None
    if sys.stdin.isatty():
        print(f"{name} at {url}. {HELP}", file=sys.stderr)


def _answer(conversation: Conversation, text: str, client: httpx.Client) -> None:
    """Print one answer as it comes, with the place in the line while it waits."""
    events = conversation.ask(text, client)
    console = Console(stderr=True)
    try:
        with console.status("...") as status:
            for event in events:
                if "queue" in event:
                    status.update(_place(event["queue"]))
                elif piece := _text(event):
                    status.stop()
                    print(piece, end="", flush=True)
        print()
    except KeyboardInterrupt:
        events.close()  # type: ignore[attr-defined]
        print(" [stopped]")
    except Refused as error:
        print(f"[{error.message}]", file=sys.stderr)


def _place(queue: dict[str, Any]) -> str:
    if queue["status"] != "queued":
        return "..."
    eta = queue["eta_seconds"]
    return f"waiting at place {queue['position']}" + (f", about {eta:g} s" if eta else "")
