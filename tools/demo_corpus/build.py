"""From the data files beside it to conversations: what the demo model is trained on.

Pure Python: it knows no tokenizer, no torch and no model. Everything random comes from the
`random.Random` that the caller brings, so that a seed gives the same corpus again.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_corpus.counting import Counting, lines

HERE = Path(__file__).parent
LANGUAGES = ("en", "ja")
KINDS = {"server": 46, "about": 8, "small_talk": 14, "story": 9, "count": 11, "unknown": 12}


@dataclass(frozen=True)
class Topic:
    """One thing the model can answer: phrasings of the question, the answer, and more of it."""

    id: str
    kind: str
    lang: str
    asks: tuple[str, ...]
    say: str
    more: str | None = None


@dataclass(frozen=True)
class Message:
    """One message of a conversation; `learn` says whether the model should learn to say it."""

    role: str
    content: str
    learn: bool = False


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((HERE / f"{name}.toml").read_text("utf-8"))


def _fill(asks: tuple[str, ...], things: list[str]) -> tuple[str, ...]:
    filled = [a.replace("{x}", x) for a in asks for x in (things if "{x}" in a else [""])]
    return tuple(dict.fromkeys(filled))


def _topics(kind: str, lang: str) -> list[Topic]:
    topics = []
    for key, entry in _read(f"{kind}.{lang}").items():
        asks = _fill(lines(entry["ask"]), entry.get("x", []))
        topics.append(Topic(key, kind, lang, asks, entry["say"], entry.get("more")))
    return topics


def _perturb(text: str, lang: str, typing: dict[str, Any], rng: random.Random) -> str:
    """Type the same question as another person might."""
    if rng.random() < 0.25:
        old, new = rng.choice(typing["swaps"])
        text = text.replace(old, new, 1)
    if rng.random() < 0.15:
        text = text.rstrip(".?!。？！ ") or text
    elif rng.random() < 0.10:
        text = text.replace("？", "?").replace("！", "!")
    if rng.random() < 0.08:
        text = rng.choice(typing["prefixes"]) + text
    if lang == "en" and rng.random() < 0.15:
        text = text.lower()
    if lang == "en" and len(text) > 15 and rng.random() < 0.05:
        at = rng.randrange(3, len(text) - 2)
        text = text[:at] + text[at + 1 :]
    return text


class _Templates:
    """The phrasings with gaps, of one language."""

    def __init__(self, lang: str) -> None:
        data = _read(f"templates.{lang}")
        self.counting = Counting(data["count"], data["fixed"], ", " if lang == "en" else "、")
        story = data["story"]
        self.plain, self.any = lines(story["plain"]["ask"]), lines(story["any"]["ask"])
        self.typing: dict[str, Any] = data["typing"]


class Corpus:
    """All topics of both languages, and the conversations that can be made of them."""

    def __init__(self) -> None:
        kinds = ("server", "about", "small_talk", "unknown")
        self.topics = {(k, lang): _topics(k, lang) for k in kinds for lang in LANGUAGES}
        self.stories = {lang: _read(f"stories.{lang}") for lang in LANGUAGES}
        self.follow_ups = {
            lang: {
                key: (lines(entry["ask"]), entry.get("say", ""))
                for key, entry in _read(f"follow_up.{lang}").items()
            }
            for lang in LANGUAGES
        }
        self.templates = {lang: _Templates(lang) for lang in LANGUAGES}
        self.systems: dict[str, list[str]] = _read("system")

    def all_topics(self) -> list[Topic]:
        """Every topic, with the stories and the fixed answers of counting as topics as well."""
        topics = [topic for group in self.topics.values() for topic in group]
        for lang in LANGUAGES:
            topics += self._story_topics(lang)
            for number, (asks, say) in enumerate(self.templates[lang].counting.fixed):
                topics.append(Topic(f"fixed_{number}", "count", lang, asks, say))
        return topics

    def _story_topics(self, lang: str) -> list[Topic]:
        topics = []
        for key, entry in self.stories[lang].items():
            asks = tuple(
                ask.format(w=w) for w in entry["words"] for ask in self.templates[lang].plain
            )
            if key == "cat":
                asks += self.templates[lang].any
            topics.append(Topic(key, "story", lang, asks, entry["say"]))
        return topics

    def texts(self) -> Iterator[str]:
        """Every text once: what the tokenizer is trained on."""
        for topic in self.all_topics():
            yield from topic.asks[:40]
            yield topic.say
            yield topic.more or ""
        for lang in LANGUAGES:
            yield from self.templates[lang].counting.texts()
            yield from self.systems[lang]
            for asks, say in self.follow_ups[lang].values():
                yield from asks
                yield say

    def exchange(self, lang: str, rng: random.Random) -> Topic:
        """One question (the only one in `asks`) and its answer."""
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        if kind == "count":
            ask, say = self.templates[lang].counting.sample(rng)
            topic = Topic("count", kind, lang, (ask,), say)
        elif kind == "story":
            topic = self._story(lang, rng)
        else:
            topic = rng.choice(self.topics[kind, lang])
        ask = _perturb(rng.choice(topic.asks), lang, self.templates[lang].typing, rng)
        return Topic(topic.id, kind, lang, (ask,), topic.say, topic.more)

    def _story(self, lang: str, rng: random.Random) -> Topic:
        key, entry = rng.choice(list(self.stories[lang].items()))
        ask = rng.choice(self.templates[lang].plain).format(w=rng.choice(entry["words"]))
        if rng.random() < 0.10:
            key, ask = "cat", rng.choice(self.templates[lang].any)
        return Topic(key, "story", lang, (ask,), self.stories[lang][key]["say"])

    def _follow_up(self, last: Topic | None, lang: str, rng: random.Random) -> Topic | None:
        dice, asks = rng.random(), self.follow_ups[lang]
        if last is None:
            if dice < 0.01:
                return Topic("nothing", "follow_up", lang, asks["nothing"][0], asks["nothing"][1])
        elif dice < 0.12 or (last.more and dice < 0.25):
            say = last.more if last.more and last.lang == lang else asks["more"][1]
            return Topic("more", "follow_up", lang, asks["more"][0], say)
        elif dice < 0.33:
            return Topic("again", "follow_up", lang, asks["again"][0], last.say)
        elif dice < 0.42:
            return next(t for t in self.topics["small_talk", lang] if t.id == "thanks")
        return None

    def conversation(self, rng: random.Random, single: float = 0.5) -> list[Message]:
        """One conversation, of one turn or of many, with or without a system message.

        `single` is the share of conversations of one turn.
        """
        lang = rng.choice(LANGUAGES)
        many = [rng.randint(2, 4), rng.randint(5, 9), rng.randint(10, 16)]
        turns = 1 if rng.random() < single else rng.choices(many, [69, 21, 10])[0]
        messages = []
        if rng.random() < 0.3:
            messages.append(Message("system", rng.choice(self.systems[lang])))
        mixed, last = rng.random() < 0.2, None
        for _ in range(turns):
            lang = rng.choice(LANGUAGES) if mixed else lang
            topic = self._follow_up(last, lang, rng) or self.exchange(lang, rng)
            messages.append(Message("user", rng.choice(topic.asks)))
            if last is not None and rng.random() < 0.02:  # the user hung up in the middle
                cut = topic.say[: rng.randrange(10, len(topic.say))].rstrip()
                messages.append(Message("assistant", cut, learn=False))
                last = None
            else:
                messages.append(Message("assistant", topic.say, learn=True))
                last = topic
        return messages
