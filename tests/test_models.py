"""What a model's name means, before anything of it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatstream_trio.errors import ModelNotFound
from chatstream_trio.models import find_model
from chatstream_trio.settings import Settings
from chatstream_trio.torch_runner.load.source import folder_of


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "owner/name", "Qwen2.5-0.5B", "a_b/c.d-e_f"])
def test_a_name_is_asked_of_the_hub(name: str) -> None:
    """With an owner or without; the id is the name."""
    assert folder_of(name) is None
    assert find_model(Settings(model=name)).id == name


@pytest.mark.parametrize("name", ["gpt2", "owner/name", "./gpt2", "gpt2/", "../here/my model"])
def test_a_folder_that_is_there_goes_first(name: str) -> None:
    """Also if it is called like a model of the hub; the id is the folder's name."""
    Path(name).mkdir(parents=True)
    assert folder_of(name) == Path(name)
    assert find_model(Settings(model=name)).id == Path(name).name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "./gpt2",
        "/gpt2",
        "~/gpt2",
        "~nobody-of-that-name/gpt2",
        "gpt2/",
        "a//b",
        "a/b/c",
        "my model",
        r"C:\models\gpt2",
        "a/.b",
        "n" * 300,
        "模型",
    ],
)
def test_what_can_only_be_a_path_is_one(name: str) -> None:
    """No network is asked; the message names it."""
    with pytest.raises(ModelNotFound) as caught:
        find_model(Settings(model=name))
    assert f"no model folder at {name!r}" in caught.value.message
    assert caught.value.param == "model"


@pytest.mark.parametrize("name", ["model.gguf", "./model.safetensors"])
def test_a_file_is_no_model(name: str) -> None:
    """Said as it is, and not that the hub has none of that name."""
    Path(name).touch()
    with pytest.raises(ModelNotFound, match="is a file; a model is a folder"):
        find_model(Settings(model=name))
