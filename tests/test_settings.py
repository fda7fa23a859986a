"""Settings that are more than a value: keys, parsed once, and never shown."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from chatstream_trio import ChatStream, Model, ScriptedRunner, Settings, SettingsError
from chatstream_trio.settings import ApiKey
from chatstream_trio.text.words import WordCodec
from house import ask


def test_a_key_and_its_weight() -> None:
    """What follows the last "=" is a weight if it is a number, and part of the key if not."""
    settings = Settings(api_key=("good", "pad==", "heavy=2.5", "=3"), admin_key=("boss",))
    assert settings.keys == (
        ApiKey("boss", admin=True),
        ApiKey("good"),
        ApiKey("pad=="),
        ApiKey("heavy", 2.5),
        ApiKey("=3"),
    )
    assert settings.keys is settings.keys  # parsed once


@pytest.mark.parametrize("setting", ["api_key", "admin_key"])
@pytest.mark.parametrize("bad", ["", "sesam=0", "sesam=5000", "sesam=nan", "schlüssel"])
def test_a_malformed_key_is_a_wrong_setting(setting: str, bad: str) -> None:
    """Whoever makes the settings is told which one, and nobody reads the key in a log."""
    with pytest.raises(SettingsError, match=f"^{setting} must be KEY") as refusal:
        Settings(**{setting: ("fine", bad)})  # type: ignore[arg-type]
    assert refusal.value.param == setting
    assert not bad or bad not in str(refusal.value)


async def test_a_secret_is_in_no_repr(autojump_clock: MockClock) -> None:
    """Neither in that of the settings nor of what bears a client's key."""
    settings = Settings(api_key=("sesam=2",), admin_key=("boss",), max_active=1)
    assert "sesam" not in repr((settings, settings.keys))
    assert "boss" not in repr((settings, settings.keys))
    model = Model("scripted", WordCodec, lambda progress: ScriptedRunner(rows=1, pace=1.0))
    async with ChatStream.open(settings, model=model, threaded=False) as chat:
        async with chat.generate(ask(max_tokens=1), id="x", key="key sesam"):
            assert "sesam" not in repr(chat.status())
        assert "sesam" not in repr(chat.cancel("x"))


async def test_the_weights_are_those_of_the_settings(autojump_clock: MockClock) -> None:
    """Whoever opens the service: nobody has to carry them there. Keys of one's own come besides."""
    settings = Settings(api_key=("light", "heavy=3"), max_active=1)
    model = Model("scripted", WordCodec, lambda progress: ScriptedRunner(rows=1, pace=1.0))
    async with ChatStream.open(
        settings, model=model, threaded=False, weights={"mine": 2.0}
    ) as chat:
        lines = chat._admission._lines
        assert lines._weights == {"key heavy": 3.0, "mine": 2.0}
