"""Fine-tuning on a few dozen digits."""

from __future__ import annotations

import copy
import csv
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps

import tokenred as tr
from tokenred.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    OutputExistsError,
    TokenredError,
)
from tokenred.data import ImageDataset, open_dataset
from tokenred.models import load_model
from tokenred.training.finetune import Finetuned, finetune
from tokenred.training.presets import settings_for

# A run that ends itself: SIGKILL after some step, or half-way through writing a state.
_KILLED = """
import os, signal, sys, warnings
import torch
warnings.simplefilter("ignore")
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[4])
import test_finetune as here
from tokenred.training import loop, state
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
what, number, seen = sys.argv[2], int(sys.argv[3]), [0]
def count():
    seen[0] += 1
    return seen[0] == number
if what == "step":
    step = loop.Trainer._step
    def stopped(*a, **k):
        if count(): kill()
        return step(*a, **k)
    loop.Trainer._step = stopped
else:
    whole = torch.save
    def half(value, place):
        if count():
            place.write_bytes(b"half")
            kill()
        whole(value, place)
    torch.save = half
here.train(sys.argv[1], resume=True)
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as in the runs that are killed
    yield
    torch.set_num_threads(before)


def small(name: str = "evit", **changes: Any) -> Any:
    few = {"epochs": 3, "batch_size": 16, "ema": 0.9, "keep_warmup": (1, 2)}
    return settings_for(name, "digits").replace(**(few | changes))


def dataset(split: str, count: int) -> ImageDataset:
    whole = open_dataset("digits", split=split)
    part = ImageDataset(whole.source, whole.labels, whole.classes, "digits")
    part.labels = whole.labels[:count]
    return part


def train(output: str | Path, name: str = "dynamicvit", **arguments: Any) -> Finetuned:
    settings = arguments.pop("settings", None) or small(name)
    defaults = {"limit": 48, "validation": dataset("test", 40), "progress": False}
    given = defaults | arguments
    data = given.pop("data", None) or dataset("train", 200)
    return finetune(
        load_model("digits"), given.pop("strategy", None) or tr.strategy(name), data,
        output=output, settings=settings, **given,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    # Learned parts, Gumbel noise, mixup, a teacher, an average: all that could go astray.
    torch.manual_seed(0)
    whole = train(tmp_path / "whole").model.state_dict()
    output = tmp_path / "killed"
    for what, number in (("step", 5), ("state", 2)):
        killed = subprocess.run(
            [sys.executable, "-c", "import torch; torch.manual_seed(0)\n" + _KILLED,
             str(output), what, str(number), str(Path(__file__).parent)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (output / "last.safetensors").exists()
    resumed = train(output, resume=True)
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole[name]), name
    for name in ("last.safetensors", "best.safetensors"):
        first, second = tr.load(tmp_path / "whole" / name), tr.load(output / name)
        for key, value in first.state_dict().items():
            assert torch.equal(value, second.state_dict()[key])
    assert [row["epoch"] for row in resumed.rows] == [0, 1, 2]
    # A finished run gives its result again and trains no more.
    assert train(output, resume=True).rows == resumed.rows


def test_what_lies_in_the_folder(tmp_path: Path) -> None:
    result = train(tmp_path, "evit")
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [float(row["reduction"]) for row in rows] == pytest.approx([0, 0, 0.5])
    assert float(rows[-1]["top1"]) == result.top1
    assert all(float(row["loss"]) > 0 and float(row["lr"]) > 0 for row in rows)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(tr.load(result.path)(images), result.model(images))
    assert tr.load(result.path).strategy == tr.strategy("evit")
    with pytest.raises(OutputExistsError, match=r"log\.csv"):
        train(tmp_path, "evit")
    with pytest.raises(ConfigError, match=r"epochs 3 there, 4 now"):
        train(tmp_path, "evit", settings=small(epochs=4), resume=True)
    train(tmp_path, "evit", settings=small(epochs=1, ema=None), overwrite=True)
    with (tmp_path / "log.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1


def test_workers_do_not_change_the_weights(tmp_path: Path) -> None:
    one = small(epochs=1)
    alone = train(tmp_path / "a", "evit", settings=one)
    helped = train(tmp_path / "b", "evit", settings=one, workers=1)
    other = train(tmp_path / "c", "evit", settings=one.replace(seed=1))
    same = [torch.equal(a, b) for a, b in _pairs(alone, helped)]
    assert all(same)
    assert not all(torch.equal(a, b) for a, b in _pairs(alone, other))


def _pairs(first: Finetuned, second: Finetuned) -> Any:
    return zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)


def test_frozen_parameters_stay_and_the_others_learn(tmp_path: Path) -> None:
    settings = small("idlevit", epochs=1, frozen=("pos_embed", "cls_token"), keep_warmup=None)
    trained = train(tmp_path, "idlevit", settings=settings).model
    before = load_model("digits")
    assert torch.equal(trained.pos_embed, before.pos_embed)
    assert torch.equal(trained.cls_token, before.cls_token)
    assert not torch.equal(trained.head.weight, before.head.weight)
    assert {"token_cut", "cls_feature"} <= set(
        (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    )


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
def test_the_seed_decides_where_learned_parts_begin(tmp_path: Path) -> None:
    still = small("dynamicvit", epochs=1, lr=1e-12, min_lr=0.0, warmup_lr=0.0, ema=None)
    first, again, other = (
        train(tmp_path / str(n), settings=still.replace(seed=seed)).model.state_dict()
        for n, seed in enumerate((0, 0, 1))
    )
    name = "parts.selector.stages.0.decide.0.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.allclose(first[name], other[name], atol=1e-3)


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
def test_the_backbone_waits_for_the_learned_parts(tmp_path: Path) -> None:
    settings = small(
        "dynamicvit", epochs=1, backbone_frozen=1, ema=None, keep_warmup=None, weight_decay=0.5
    )
    trained = train(tmp_path, settings=settings).model
    before = load_model("digits").state_dict()
    state = trained.state_dict()
    assert all(torch.equal(state[name], value) for name, value in before.items())
    # A norm's bias begins at 0.
    assert state["parts.selector.stages.0.embed.0.bias"].abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"settings": {"batch_size": 64}}, ConfigError, "one batch of 64"),
        ({"settings": {"batch_size": 15}}, ConfigError, "pairs"),
        ({"settings": {"criterion": "idlevit"}}, ConfigError, "teacher"),
        ({"settings": {"criterion": "ice"}}, TokenredError, "unknown criterion"),
        ({"settings": {"optimizer": "adamant"}}, ConfigError, "optimi"),
        ({"settings": {"scheduler": "plateau"}}, ConfigError, "plateau"),
        ({"device": "abacus"}, ConfigError, "device"),
        ({"validation": None}, ConfigError, "validation"),
        ({"strategy": "evti"}, TokenredError, "evit"),
    ],
)
def test_refuses_before_any_work(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    def run() -> None:
        settings = {k: small(**v) for k, v in arguments.items() if k == "settings"}
        train(tmp_path / "run", "evit", **(arguments | settings))

    with pytest.raises(error, match=message):
        run()
    assert not list(tmp_path.rglob("*.safetensors")) + list(tmp_path.rglob("*.pt"))


def test_refuses_labels_and_states_that_do_not_fit(tmp_path: Path) -> None:
    data = dataset("train", 50)
    data.labels = (*data.labels[:-1], 10)
    with pytest.raises(DataError, match="labels below 10"):
        train(tmp_path, "evit", data=data)
    (tmp_path / "state.pt").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="afresh"):
        train(tmp_path, "evit", resume=True)


@pytest.mark.parametrize("part", ["data", "validation"])
@pytest.mark.parametrize("change", ["labels", "pixels"])
def test_a_run_resumes_on_the_same_images_only(tmp_path: Path, part: str, change: str) -> None:
    few = small("gtp", epochs=1, ema=None)
    given = {"data": dataset("train", 64), "validation": dataset("test", 20)}
    train(tmp_path, "gtp", settings=few, limit=None, **given)
    other = copy.copy(given[part])
    if change == "labels":
        other.labels = (*other.labels[1:], other.labels[0])
    else:
        other.source = _Inverted(given[part].source)
    for same in (given, {**given, part: copy.copy(given[part])}):
        train(tmp_path, "gtp", settings=few, limit=None, resume=True, **same)
    with pytest.raises(ConfigError, match=f"began otherwise: {part} 'digits, "):
        train(tmp_path, "gtp", settings=few, limit=None, resume=True, **{**given, part: other})


class _Inverted:
    def __init__(self, source: Any) -> None:
        self.whole = source

    def __len__(self) -> int:
        return len(self.whole)

    def name(self, index: int) -> str:
        return str(self.whole.name(index))

    def image(self, index: int) -> Image.Image:
        return ImageOps.invert(self.whole.image(index))


def test_validation_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    class Torn(_Inverted):
        def image(self, index: int) -> Image.Image:
            raise OSError("torn")

    torn = dataset("test", 20)
    torn.source = Torn(torn.source)
    with pytest.raises(DataError, match="none of the 20"):
        train(tmp_path / "out", "gtp", validation=torn)
    assert not (tmp_path / "out").exists()
