"""A stored result is found again by all that determines it, and by nothing else."""

import copy
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tokenred as tr
from tests.analysis.study.conftest import MakeGrid
from tokenred.analysis.study import refs
from tokenred.analysis.study.cell import MetricNameError
from tokenred.analysis.study.metrics import register_metric
from tokenred.analysis.study.pool import Serial
from tokenred.analysis.study.refs import read_data
from tokenred.analysis.study.store import Store
from tokenred.core.errors import PartError
from tokenred.data import ImageDataset


def key(make_grid: MakeGrid, **options: Any) -> str:
    (cell,) = make_grid(**{"model": MODEL, **options})
    return cell.key


MODEL = tr.models.load_model("digits")


def test_all_that_determines_a_result_is_in_the_key(make_grid: MakeGrid) -> None:
    random = {"spec": "digits", "pretrained": False}
    one = key(make_grid)
    # Named or in memory, in training or not: weights count, not where they are.
    assert key(make_grid, model="digits") == one
    MODEL.train()
    assert key(make_grid, image_size=32) == one
    MODEL.eval()
    others = {"batch_size": 3, "device": "cpu", "name": "other", "image_cache": 0, "loaders": 0}
    assert key(make_grid, **others) == one
    assert key(make_grid, model=random) == key(make_grid, model=random)
    different: list[dict[str, Any]] = [
        {}, {"base": "gtp:P=5"}, {"budget": 0.7}, {"image_size": 40}, {"dtype": "float64"},
        {"model": random}, {"model": {"spec": "digits", "mean": (0.1,) * 3}},
        {"data": {"source": "digits", "split": "train"}}, {"limit": 11}, {"limit": None},
        {"seed": 1}, {"metrics": ["accuracy", "speed"]},
    ]  # fmt: skip
    assert len({key(make_grid, **options) for options in different}) == len(different)


# ---------------------------------------------------------------- data


def write(folder: Path, shade: int = 0, moved: bool = False) -> Path:
    """Ten pictures of one size in bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    for label in range(10):
        place = folder / str((label + moved) % 10) / f"{label}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 10 * label + shade).save(place, compress_level=0)
    return folder


def zipped(folder: Path) -> Path:
    to = folder.with_suffix(".zip")
    with zipfile.ZipFile(to, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder))
    return to


KINDS: dict[str, Callable[[Path], Any]] = {
    "folder": lambda folder: folder,
    "zip": zipped,
    "opened": tr.data.open_dataset,
}


@pytest.mark.parametrize("kind", KINDS)
def test_content_of_files(make_grid: MakeGrid, tmp_path: Path, kind: str) -> None:
    """The same names and sizes; other pixels, or other labels."""

    def of(folder: str = "data", **changes: Any) -> str:
        return key(make_grid, data=KINDS[kind](write(tmp_path / folder, **changes)), limit=None)

    one = of()
    assert one == of() == of("elsewhere")
    assert len({one, of(shade=1), of(moved=True)}) == 3
    if kind != "opened":  # whose transform counts
        assert one == key(make_grid, data=zipped(write(tmp_path / "packed")), limit=None)


class Arrays:
    """A source in memory."""

    def __init__(self, pixels: np.ndarray[Any, Any]) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        return str(index)

    def image(self, index: int) -> Image.Image:
        if self.pixels[index].max() == 255:
            raise OSError("broken")
        return Image.fromarray(self.pixels[index])


class Flipped(ImageDataset):
    """A dataset of the user's own."""

    by = 1

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        image, label, place = super().__getitem__(index)
        return image * self.by, label, place


def in_memory(shade: int = 0, transform: Any = None, kind: Any = ImageDataset) -> ImageDataset:
    pixels = np.zeros((20, 4, 4, 3), np.uint8)
    pixels[-1] = shade
    found: ImageDataset = kind(
        Arrays(pixels), [i % 10 for i in range(20)], "0123456789", "mem", transform
    )
    return found


def times(scale: float) -> Any:
    return lambda image: torch.full((3, 32, 32), scale * image.width)


def test_datasets_in_memory(make_grid: MakeGrid) -> None:
    twice = in_memory(kind=Flipped)
    twice.by = 2
    several = [
        in_memory(), in_memory(1), in_memory(255), in_memory(transform=times(1.0)),
        in_memory(transform=times(-1.0)), in_memory(kind=Flipped), twice,
    ]  # fmt: skip
    found = [key(make_grid, data=data) for data in several]
    assert len(set(found)) == len(found)
    assert key(make_grid, data=in_memory(transform=times(-1.0))) == found[4]
    rng = np.random.default_rng(0)

    def noisy(image: Any) -> torch.Tensor:
        return torch.full((3, 32, 32), rng.normal())

    with pytest.raises(PartError, match=r"'mem' > transform > closure 'rng'.*Generator"):
        key(make_grid, data=in_memory(transform=noisy))


def test_class_maps(make_grid: MakeGrid, tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    numbers = {str(label): 9 - label for label in range(10)}
    assert key(make_grid, data=folder) != key(make_grid, data=folder, class_map=numbers)


def test_a_stamp_is_given_once_a_file_has_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "deep" / "er" / "data")
    stamp = read_data(folder, None, None).stamp
    assert stamp() is None
    monkeypatch.setattr(refs, "SETTLED", -1.0)
    before = stamp()
    assert before == stamp() is not None
    image = folder / "0" / "0.png"
    about = image.stat()
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    os.utime(image, ns=(about.st_atime_ns, about.st_mtime_ns))  # neither size nor time
    assert stamp() != before


def test_a_second_start_reads_no_image(
    make_grid: MakeGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refs, "SETTLED", -1.0)
    folder = write(tmp_path / "data")
    path = tmp_path / "runs.db"
    make_grid(data=folder).run(path, progress=False)
    # Touched: to be read again, at the next start alone.
    os.utime(folder / "0" / "0.png", ns=(1, 1))
    make_grid(data=folder).run(path, progress=False)
    monkeypatch.setattr("tokenred.analysis.study.facts.content_of", None)
    study = make_grid(data=folder).run(path, progress=False)
    assert len(study.store) == len(study.records) == 1


def test_images_that_changed_after_the_plan(
    make_grid: MakeGrid, tmp_path: Path, store: Store
) -> None:
    folder = write(tmp_path / "data")

    class Late(Serial):
        def run(self, *arguments: Any) -> Any:
            write(folder, shade=1)
            return super().run(*arguments)

    (row,) = make_grid(data=folder).run(store, engine=Late(), progress=False).records
    assert "are not the planned ones" in row["error"]


# ---------------------------------------------------------------- models


def _rescaled(model: Any) -> None:
    model.blocks[0].attn.scale *= 0.25


def _other_weight(model: Any) -> None:
    model.head.bias.data[0] += 1


def _other_mean(model: Any) -> None:
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.1,) * 3}


def _patched(model: Any) -> None:
    model.forward_head = lambda x, **_: x[:, 1, :10]


CHANGES = [_rescaled, _other_weight, _other_mean, _patched]


def test_another_model(make_grid: MakeGrid) -> None:
    def of(change: Any) -> str:
        model = copy.deepcopy(MODEL)
        change(model)
        return key(make_grid, model=model)

    found = [of(change) for change in CHANGES]
    assert len({key(make_grid), *found}) == len(CHANGES) + 1
    assert [of(CHANGES[0]), of(CHANGES[-1])] == [found[0], found[-1]]


# ---------------------------------------------------------------- metrics


def give(value: Any) -> Any:
    def metric(model: Any, data: Any, context: Any) -> dict[str, Any]:
        return {"v": value}

    return metric


def test_own_metrics(make_grid: MakeGrid) -> None:
    values: list[Any] = [1, 2, torch.zeros(2), torch.ones(2), len, torch.nn.Linear(1, 1)]
    found = [key(make_grid, metrics=[give(value)]) for value in values]
    assert len(set(found)) == len(found)
    assert key(make_grid, metrics=[give(1)]) == found[0]
    # It may read the batch size; accuracy does not depend on it.
    assert key(make_grid, metrics=[give(1)], batch_size=2) != found[0]
    with pytest.raises(PartError, match=r"metric metric > closure 'value'.*Random"):
        make_grid(metrics=[give(__import__("random").Random())])


def test_timings_belong_to_machine_engine_and_batch_size(
    make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(metric: Any = "speed", run: Any = None, **options: Any) -> str:
        told = {"model": MODEL, "data": None, "limit": None, "metrics": [metric], "batch_size": 2}
        return str(make_grid(**{**told, **options}).dry_run(**(run or {}))["key"][0])

    register_metric("timed one", version=1, timed=True, needs_data=False)(give(1))
    found = [
        of(),
        of(batch_size=3),
        of(dtype="amp:bfloat16"),
        of(device="meta", run={"engine": "processes"}),
        of(compile=True),
        of(image_size=40),
        of(axes={"threads": [3]}),
        of(reference={"spec": "digits", "pretrained": False}),
        of(run={"threads": 7}),
        of(run={"engine": "processes", "workers": 2}),
        of({"name": "speed", "pairs": 4}),
        of("timed one"),
        of("timed one", batch_size=3),
    ]
    machine = {
        "torch.get_num_threads": lambda: 9, "torch.__version__": "1.2.3",
        "platform.node": lambda **_: "another", "platform.platform": lambda **_: "another",
    }  # fmt: skip
    for name, value in machine.items():
        with monkeypatch.context() as patch:
            patch.setattr(name, value)
            found.append(of())
    assert len(set(found)) == len(found)
    assert of() == found[0]


def test_other_engines_find_accuracy(make_grid: MakeGrid, store: Store) -> None:
    grid = make_grid(limit=5)
    grid.run(store, progress=False)
    assert (grid.dry_run(store, engine="processes", workers=1)["status"] == "done").all()


@pytest.mark.parametrize("name", ["gmacs", "key", "threads", "P"])
def test_names_that_a_row_has(make_grid: MakeGrid, name: str, store: Store) -> None:
    def spoken(model: Any, data: Any, context: Any) -> dict[str, Any]:
        return {"v": 1, name: 2}

    with pytest.raises(MetricNameError, match=f"gives '{name}'"):
        make_grid({"P": [1, 2]}, metrics=[spoken]).run(store, progress=False)
    assert len(store) == 0
    if name != "P":
        with pytest.raises(MetricNameError):
            register_metric(name)


def test_names_of_two_metrics(make_grid: MakeGrid) -> None:
    with pytest.raises(MetricNameError, match="another metric"):
        make_grid(metrics=[give(1), give(2)]).run(progress=False)


# ---------------------------------------------------------------- stores and processes


def test_a_store_of_older_keys(
    make_grid: MakeGrid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tokenred.analysis.study.plan.KEYS", 1)
        make_grid(limit=2).run(store, progress=False)
    make_grid(limit=2).run(store, progress=False)
    assert len(store) == 2


PROGRAM = """
import sys, torch, tokenred as tr
from tokenred.analysis import Grid
TABLE = {"weights": torch.arange(3.0), "names": {"a", "b", "c"}}
class Mine(tr.Scorer):
    def __call__(self, state, attention):
        return state.image.norm(dim=-1) * len(TABLE)
def metric(model, data, context):
    return {"v": len(TABLE["names"] & {"b", "c", "d"})}
def transform(image):
    return torch.zeros(3, 32, 32) + len(TABLE)
data = tr.data.open_dataset(FOLDER, transform=transform)
(cell,) = Grid(tr.Strategy(Mine()), model="digits", data=data, metrics=["accuracy", metric])
print(cell.key)
"""


@pytest.mark.slow
def test_restarted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a new process, with another seed of hashes."""
    program = PROGRAM.replace("FOLDER", repr(str(write(tmp_path / "data"))))
    exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
    )  # fmt: skip
    assert ran.stdout == capsys.readouterr().out != ""
