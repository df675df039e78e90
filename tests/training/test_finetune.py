"""Fine-tuning on a few dozen digits."""

import copy
import csv
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps

import tokenred as tr
from tests.training.conftest import digits, small, tiny, train
from tokenred.attention import ScoreMod
from tokenred.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MissingExtraError,
    OutputExistsError,
    TokenredError,
)
from tokenred.core.state import TokenState
from tokenred.strategies.score_mods import TopKeys
from tokenred.strategies.strategy import recipes
from tokenred.training.finetune import check_mask_is_read

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
ROOT = Path(__file__).parents[2]
FEW: dict[str, Any] = {"settings": small(epochs=1), "data": digits("train", 32)}


class Changed:
    """The images of another source, looked at before they are given."""

    def __init__(self, whole: Any, look: Any) -> None:
        self.whole, self.look = whole, look
        self.name, self.raw = whole.name, whole.raw

    def __len__(self) -> int:
        return len(self.whole)

    def image(self, index: int) -> Image.Image:
        found: Image.Image = self.look(self.whole.image(index))
        return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of ``FEW``."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, **FEW)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained`."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


# ---------------------------------------------------------------- resumed runs


def train_until_killed(output: str, reads: int) -> None:
    """End by SIGKILL when so many images have been read."""
    seen = [0]

    def look(image: Image.Image) -> Image.Image:
        seen[0] += 1
        if seen[0] == reads:
            os.kill(os.getpid(), signal.SIGKILL)
        return image

    data = digits("train", 48)
    data.source = Changed(data.source, look)
    warnings.simplefilter("ignore")
    train(output, "dynamicvit", data=data, resume=True)


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    # Learned parts, Gumbel noise, mixup, a teacher, an average: all that could go astray.
    whole = train(tmp_path / "whole", "dynamicvit").model.state_dict()
    output = tmp_path / "killed"
    program = (
        "import torch; torch.set_num_threads(1)\n"
        "from tests.training.test_finetune import train_until_killed\n"
        f"train_until_killed({str(output)!r}, 72)"  # in the middle of the second of three epochs
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (output / "state.pt").exists()
    assert not (output / "last.safetensors").exists()
    resumed = train(output, "dynamicvit", resume=True)
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole[name]), name
    for name in ("last.safetensors", "best.safetensors"):
        first, second = tr.load(tmp_path / "whole" / name), tr.load(output / name)
        for key, value in first.state_dict().items():
            assert torch.equal(value, second.state_dict()[key])
    assert [row["epoch"] for row in resumed.rows] == [0, 1, 2]
    # A finished run gives its result again and does not train further.
    assert train(output, "dynamicvit", resume=True).rows == resumed.rows


@pytest.mark.parametrize("part", ["data", "validation"])
def test_a_run_resumes_on_the_same_images_only(folder: Path, part: str) -> None:
    given = {"data": FEW["data"], "validation": digits("test", 20)}
    relabelled, inverted = copy.copy(given[part]), copy.copy(given[part])
    relabelled.labels = (*relabelled.labels[1:], relabelled.labels[0])
    inverted.source = Changed(inverted.source, ImageOps.invert)
    del inverted.source.raw
    train(folder, resume=True, **FEW | given | {part: copy.copy(given[part])})
    for other in (relabelled, inverted):
        with pytest.raises(ConfigError, match=f"started differently: {part} 'digits, "):
            train(folder, resume=True, **FEW | given | {part: other})
    with pytest.raises(ConfigError, match=r"epochs 1 there, 4 now"):
        train(folder, resume=True, **FEW | {"settings": small(epochs=4)})


def spoil(state: dict[str, Any], what: str) -> Any:
    """A state that somebody else wrote."""
    moments = state["optimizer"]["state"]
    match what:
        case "another file":
            return {"a": 1}
        case "no optimizer":
            del state["optimizer"]
        case "rows":
            state["rows"] = [{"epoch": "first"}]
        case "later rows":
            state["rows"][0]["epoch"] = 5.0
        case "weights":
            del state["model"]["head.bias"]
        case "shape of weights":
            state["ema"]["head.bias"] = torch.zeros(3)
        case "moments":
            moments[0]["exp_avg"] = torch.zeros(7, 7)
        case "no moments":
            moments[0] = None
        case "number of groups":
            state["optimizer"]["param_groups"].pop()
        case "options":
            state["optimizer"]["param_groups"][0]["betas"] = "none"
    return state


@pytest.mark.parametrize(
    "what",
    ["another file", "no optimizer", "rows", "later rows", "weights", "shape of weights",
     "moments", "no moments", "number of groups", "options"],
)  # fmt: skip
def test_states_that_do_not_fit_are_refused(folder: Path, what: str) -> None:
    state = torch.load(folder / "state.pt", weights_only=True)
    torch.save(spoil(state, what), folder / "state.pt")
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        train(folder, resume=True, **FEW)


@pytest.mark.parametrize("content", [b"torn", b""])
def test_a_damaged_state_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="Start again"):
        train(tmp_path, resume=True, **FEW)


# ---------------------------------------------------------------- what a run does


def test_what_is_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = train(tmp_path, tensorboard=True)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [float(row["reduction"]) for row in rows] == pytest.approx([0, 0, 0.5])
    assert float(rows[-1]["top1"]) == result.top1
    assert all(float(row["loss"]) > 0 and float(row["lr"]) > 0 for row in rows)
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    logged = [(e.step, pytest.approx(e.value)) for e in events.Scalars("top1")]
    assert logged == [(i, row["top1"]) for i, row in enumerate(result.rows)]
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(tr.load(result.path)(images), result.model(images))
    assert tr.load(result.path).strategy == tr.strategy("evit")
    with pytest.raises(OutputExistsError, match=r"log\.csv"):
        train(tmp_path)
    train(tmp_path, overwrite=True, **FEW)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"tokenred\[train\]"):
        train(tmp_path / "other", tensorboard=True)


def test_the_seed_alone_decides(trained: Path, tmp_path: Path) -> None:
    alone = tr.load(trained / "last.safetensors").state_dict()
    torch.manual_seed(5)
    helped = train(tmp_path / "b", workers=1, **FEW).model.state_dict()
    other = small(epochs=1, seed=1)
    others = train(tmp_path / "c", **FEW | {"settings": other}).model.state_dict()
    assert all(torch.equal(alone[name], helped[name]) for name in alone)
    assert not all(torch.equal(alone[name], others[name]) for name in alone)


def test_the_seed_decides_where_learned_parts_begin(tmp_path: Path) -> None:
    still = {"epochs": 1, "lr": 1e-12, "min_lr": 0.0, "warmup_lr": 0.0, "ema": None}
    one, other = (
        train(tmp_path / str(seed), "dynamicvit", settings=small("dynamicvit", seed=seed, **still),
              data=FEW["data"]).model.state_dict()
        for seed in (0, 1)
    )  # fmt: skip
    name = "parts.selector.stages.0.decide.0.weight"
    assert not torch.allclose(one[name], other[name], atol=1e-3)


def test_a_second_pass_that_removes_less(tmp_path: Path) -> None:
    given = FEW | {"settings": small("mctf", epochs=1, keep_warmup=None)}
    (row,) = train(tmp_path, strategy=tr.strategy("mctf", r=3), **given).rows
    assert row["second"] > 0
    assert "consistency" in row


def test_frozen_parameters_stay_and_the_others_learn(tmp_path: Path) -> None:
    model, before = tiny(), tiny()
    settings = small("idlevit", epochs=1, frozen=("pos_embed", "cls_token"), keep_warmup=None)
    trained = train(tmp_path, "idlevit", settings=settings, model=model).model
    assert torch.equal(trained.pos_embed, before.pos_embed)
    assert torch.equal(trained.cls_token, before.cls_token)
    assert not torch.equal(trained.head.weight, before.head.weight)
    assert model.pos_embed.requires_grad
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    assert {"token_cut", "cls_feature"} <= set(header.split(","))


def test_the_backbone_waits_for_the_learned_parts(tmp_path: Path) -> None:
    settings = small(
        "dynamicvit", epochs=1, backbone_frozen=1, ema=None, keep_warmup=None, weight_decay=0.5
    )
    state = train(tmp_path, "dynamicvit", settings=settings).model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in tiny().state_dict().items())
    # A norm's bias begins at 0.
    assert state["parts.selector.stages.0.embed.0.bias"].abs().sum() > 0


# ---------------------------------------------------------------- what is refused


def unreadable(split: str, count: int) -> Any:
    def torn(_: Image.Image) -> Image.Image:
        raise OSError("torn")

    data = digits(split, count)
    data.source = Changed(data.source, torn)
    return data


def labelled(label: int) -> Any:
    data = digits("train", 50)
    data.labels = (*data.labels[:-1], label)
    return data


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"settings": small(batch_size=64)}, ConfigError, "one batch of 64"),
        ({"settings": small(batch_size=15)}, ConfigError, "pairs"),
        ({"settings": small(criterion="idlevit")}, ConfigError, "teacher"),
        ({"settings": small(optimizer="adamant")}, ConfigError, "optimisers"),
        ({"settings": small(scheduler="plateau")}, ConfigError, "plateau"),
        ({"settings": small(scheduler="steep")}, TokenredError, "steep"),
        ({"settings": small(lr=1e30, warmup_lr=1e30)}, ConfigError, "loss became"),
        ({"validation": None}, ConfigError, "validation images"),
        ({"data": "nowhere"}, DataError, "nowhere"),
        ({"device": "abacus"}, ConfigError, "device"),
        ({"model": tiny().requires_grad_(False)}, ConfigError, "all are frozen"),
        ({"data": labelled(10)}, DataError, "labels below 10"),
        ({"validation": unreadable("test", 20)}, DataError, "none of the 20"),
        ({"data": unreadable("test", 20)}, DataError, "none of them"),
    ],
)
def test_refuses_before_or_instead_of_results(
    tmp_path: Path, arguments: dict[str, Any], error: type[TokenredError], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(tmp_path / "run", **arguments)
    assert not list(tmp_path.rglob("*.*"))


def write_images(folder: Path, splits: tuple[str, ...]) -> str:
    for split in splits:
        for name in "abcdefghij":
            (folder / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32), (10 * ord(name) - 900, 0, 0)).save(
                folder / split / name / "0.png"
            )
    return str(folder)


def test_training_images_never_validate(tmp_path: Path) -> None:
    lone = write_images(tmp_path / "lone", ("train",))
    flat = write_images(tmp_path / "flat", ("",))
    both = write_images(tmp_path / "both", ("train", "val"))
    with pytest.raises(DataError, match=r"found only the training images.*validation=PATH"):
        train(tmp_path / "run", data=lone, validation=None)
    with pytest.raises(DataError, match=r"train and val or test in .*flat.*validation=PATH"):
        train(tmp_path / "run", data=flat, validation=None)
    assert not (tmp_path / "run").exists()
    few: dict[str, Any] = {"settings": small(epochs=1, batch_size=4)}
    for i, (data, validation) in enumerate([(lone, flat), (flat, lone), (both, None)]):
        found = train(tmp_path / f"run{i}", data=data, validation=validation, **few)
        assert len(found.correct["fine-tuned"]) == 10


def test_mixed_precision_needs_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"tokenred\[train\]"):
        train(tmp_path / "bf16", settings=small(amp="bf16"))


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_can_be_trained(name: str) -> None:
    check_mask_is_read(tr.strategy(name))


def test_a_mask_that_nothing_reads_is_refused_before_any_work(tmp_path: Path) -> None:
    bare = tr.strategy("dynamicvit").replace(score_mods=(TopKeys(0.5),))
    with pytest.raises(ConfigError, match=r"TopKeys.*PolicyMask"):
        train(tmp_path / "run", strategy=bare)
    assert not (tmp_path / "run").exists()

    class Hides(ScoreMod):
        @property
        def in_training_only(self) -> bool:
            return True

        def __call__(self, logits: torch.Tensor, state: TokenState) -> torch.Tensor:
            return logits.masked_fill(state.memory["mask"][:, None, None] == 0, -torch.inf)

    check_mask_is_read(tr.strategy("dynamicvit").replace(score_mods=(Hides(),)))
