"""The compiled forward pass: the same laws as for every runner, and what is kept on disk."""

from __future__ import annotations

import os
import random
import re
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import torch
from contract import MakeRunner, RunnerContract
from drive import Stream, run_streams
from making import load_runner, make_runner
from needs import let_compiled_win, needs_compiler
from test_transformers_runner import generate
from tiny_models import VOCABULARY, tiny

from chatstream_trio.engine.runner import Runner
from chatstream_trio.errors import SettingsError
from chatstream_trio.models import find_model
from chatstream_trio.settings import Settings
from chatstream_trio.torch_runner.load import build, devices
from chatstream_trio.torch_runner.load.layers import compiled, pace
from chatstream_trio.torch_runner.load.layers.pace import Pace
from chatstream_trio.torch_runner.pieces import Piece

NAME = "llama-gqa-tied"


@pytest.fixture(autouse=True)
def race(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of what is tested here is the compiled form."""
    let_compiled_win(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's only compiled model is kept."""
    return tmp_path_factory.mktemp("cache") / "compiled"


@needs_compiler
class TestContract(RunnerContract):
    """The suite that every runner has to pass."""

    @pytest.fixture
    def make_runner(self, folder: Path) -> MakeRunner:
        def make(*, rows: int, max_model_len: int) -> Runner:
            return make_runner(
                tiny(NAME),
                model_id="tiny",
                rows=rows,
                max_model_len=max_model_len,
                threads=1,
                compiled=folder,
            )

        return make


@needs_compiler
def test_greedy_text_is_that_of_generate(folder: Path) -> None:
    """Law 7: token for token, alone and in company that comes and goes, in chunks or whole."""
    chance = random.Random(3)
    prompts = [
        tuple(chance.randrange(VOCABULARY) for _ in range(length)) for length in (1, 4, 9, 17, 30)
    ]
    model = tiny(NAME)
    expected = [generate(model, prompt, 20) for prompt in prompts]
    runner = make_runner(tiny(NAME), model_id="tiny", rows=4, threads=1, compiled=folder)
    assert [run_streams(runner, Stream(prompt, tokens=20))[0] for prompt in prompts] == expected
    company = [
        Stream(prompt, tokens=20, begin=2 * i, chunk=(1, 3, 100, 5, 7)[i])
        for i, prompt in enumerate(prompts)
    ]
    assert run_streams(runner, *company) == expected
    assert "float32, compiled (1.5 times as fast as not)" in " ".join(runner.info.notes)


@needs_compiler
def test_a_model_is_compiled_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compiled for the same weights on the same machine is loaded."""
    make_runner(tiny(NAME), model_id="tiny", rows=2, threads=1, compiled=folder)
    monkeypatch.setattr(compiled, "_build", None)  # calling it would raise
    runner = make_runner(tiny(NAME), model_id="tiny", rows=3, threads=1, compiled=folder)
    assert len(run_streams(runner, Stream((1, 2, 3), tokens=4))[0]) == 4
    assert [place.name for place in folder.iterdir()] == [compiled.digest(tiny(NAME))]


@needs_compiler
def test_the_faster_form_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where packed weights are faster they are served, and say what generate() says; it is measured
    once, and then what was compiled is not even loaded."""
    ran: list[list[object]] = []

    def measure(rivals: list[object], rows: int) -> list[Pace]:
        ran.append([rival([Piece(0, 9, (1,))]) for rival in rivals])  # type: ignore[operator]
        assert rows == 3
        return [Pace(1.2, 1), Pace(1, 1)]

    monkeypatch.setattr(pace, "measure", measure)
    expected = generate(tiny(NAME), (1, 2, 3), 20)
    for _ in range(2):
        runner = make_runner(tiny(NAME), model_id="tiny", rows=3, threads=1, compiled=tmp_path)
        assert run_streams(runner, Stream((1, 2, 3), tokens=20)) == [expected]
        assert "float32, not compiled, which would be 0.91 times as" in " ".join(runner.info.notes)
        monkeypatch.setattr(compiled, "_load", None)  # calling it would raise
    (logits,) = ran
    torch.testing.assert_close(logits[0], logits[1])


@needs_compiler
@pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="only Linux says what is resident"
)
def test_weights_are_resident_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a library brings and has copied is not kept in memory besides."""
    make_runner(tiny(NAME), model_id="tiny", rows=2, threads=1, compiled=folder)
    built = folder / compiled.digest(tiny(NAME))
    let_go, kept = (shutil.copytree(built, tmp_path / name / built.name) for name in "ab")
    monkeypatch.chdir(let_go.parent)
    # By a relative path, as Linux always says absolute ones.
    libraries = [compiled._load(Path(built.name))]
    with monkeypatch.context() as without:
        without.setattr(compiled, "_let_go_of_pages", lambda _: None)
        libraries.append(compiled._load(kept))
    assert resident(let_go) < resident(kept) / 4
    runner = make_runner(tiny(NAME), model_id="tiny", rows=2, threads=1, compiled=let_go.parent)
    assert len(run_streams(runner, Stream((1, 2, 3), tokens=4))[0]) == 4, "it comes back"
    del libraries


def resident(folder: Path) -> int:
    """Kilobytes in memory of what is mapped from a folder and cannot be written."""
    mapped = Path("/proc/self/smaps").read_text()
    sizes = re.findall(rf"r-.p .*{folder}/.*\n(?:.*\n)*?Rss: +(\d+) kB", mapped)
    return sum(map(int, sizes))


def test_the_digest_tells_weights_and_threads_apart() -> None:
    """One weight changed in its last bit, or another number of threads: another compiled model."""
    torch.set_num_threads(1)
    model = tiny(NAME)
    before = compiled.digest(model)
    assert before == compiled.digest(tiny(NAME))
    weight = model.get_output_embeddings().weight
    with torch.no_grad():
        weight[5, 7] = torch.nextafter(weight[5, 7], torch.tensor(9.0))
    assert compiled.digest(model) != before
    try:
        torch.set_num_threads(2)
        assert compiled.digest(tiny(NAME)) != before
    finally:
        torch.set_num_threads(1)


def test_what_cannot_be_compiled_is_an_error_that_names_the_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody asks for --compile to be served slowly; and nothing half-built stays, not even what a
    process that was killed has left."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    for name, age in ((".building-killed-once", 48 * 3600), (".building-by-somebody-else", 60)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with pytest.raises(SettingsError, match=r"llama cannot be compiled.*No working C") as caught:
        make_runner(tiny(NAME), model_id="tiny", rows=2, threads=1, compiled=tmp_path)
    assert caught.value.param == "compile"
    assert [left.name for left in tmp_path.iterdir()] == [".building-by-somebody-else"]


def test_two_that_compile_the_same_do_not_hinder_each_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The slower one finds the folder filled, and takes what is there."""
    place = tmp_path / "digest"

    def compile_slowly(_: object, *, package_path: str, **__: object) -> None:
        with zipfile.ZipFile(package_path, "w") as archive:
            archive.writestr("model/part", "slower")
        place.mkdir()
        (place / "part").write_text("faster")

    monkeypatch.setattr(compiled, "trace", lambda *_: None)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_slowly)
    compiled._build(tiny(NAME), lambda *_: torch.zeros(1), place)
    assert (place / "part").read_text() == "faster"


def test_a_damaged_folder_says_which(tmp_path: Path) -> None:
    """Who finds it in the message can delete it."""
    torch.set_num_threads(1)
    place = tmp_path / compiled.digest(tiny(NAME))
    place.mkdir()
    with pytest.raises(SettingsError, match=f"{place.name} cannot be loaded"):
        make_runner(tiny(NAME), model_id="tiny", rows=2, threads=1, compiled=tmp_path)


def test_compiling_is_for_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Said before anything is loaded."""
    monkeypatch.setattr(devices, "choose_device", lambda _: torch.device("cuda"))
    with pytest.raises(SettingsError, match="not for cuda") as caught:
        load_runner("/nowhere", model_id="m", compiled=tmp_path)
    assert caught.value.param == "compile"


@pytest.mark.parametrize("wanted", [True, False])
def test_the_settings_say_whether_and_where(
    wanted: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``--compile`` and ``--cache-dir`` reach the loader; without the first nothing is compiled."""
    seen: list[object] = []
    monkeypatch.setattr(build, "load_runner", lambda _, options, *__: seen.append(options.compiled))
    model = find_model(Settings(model=str(tmp_path), compile=wanted, cache_dir=str(tmp_path)))
    model.load_runner(lambda _: None)
    assert seen == [str(tmp_path / "compiled") if wanted else None]
