"""A graph is compared with its model, and its file written completely or not at all."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tokenred as tr
from tokenred.core.errors import ConfigError, DataError, OutputExistsError
from tokenred.export import ExportError
from tokenred.export.verified import check_agreement, check_place, write_files

OPTIONS: dict[str, Any] = {"batches": (1, 3), "tolerance": 1e-4}
EXAMPLE = torch.zeros(2, 3, 32, 32)


def test_other_tokens_do_not_agree(vit: Any) -> None:
    reduced = tr.wrap(vit(), tr.strategy("gtp", P=3))
    sizes = []

    def run(images: Tensor) -> Tensor:
        sizes.append(images.shape[0])
        return reduced(images)

    assert check_agreement(reduced, run, EXAMPLE, **OPTIONS) == (0.0, 1)
    assert sizes == [1, 3]
    for name in ("topk", "tome", "random"):
        other = tr.wrap(reduced.base, tr.strategy(name))
        with pytest.raises(ExportError, match="at batch sizes 1, 3"):
            check_agreement(reduced, other, EXAMPLE, **OPTIONS)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_difference_is_relative_to_the_largest_logit(vit: Any, scale: float) -> None:
    model = vit()
    for weight in model.head.parameters():
        weight.data *= scale
    found, _ = check_agreement(model, lambda x: model(x) * (1 + 5e-5), EXAMPLE, **OPTIONS)
    assert found == pytest.approx(5e-5, rel=0.05)
    for factor, message in ((1 + 2e-4, r"got a difference of 0\.0002"), (torch.nan, "of inf")):
        with pytest.raises(ExportError, match=message):
            check_agreement(model, lambda x, f=factor: model(x) * f, EXAMPLE, **OPTIONS)


def test_a_batch_size_that_does_not_run_is_named(vit: Any) -> None:
    model = vit()
    with pytest.raises(ExportError, match="does not run on a batch of 3: RuntimeError"):
        check_agreement(model, lambda x: model(x.view(1, 3, 32, 32)), EXAMPLE, **OPTIONS)


def test_rounding_may_decide_about_an_image_of_a_reduced_model_only(vit: Any) -> None:
    model = vit()
    reduced = tr.wrap(model, tr.strategy("gtp", P=3))
    calls = []

    def undecided(images: Tensor) -> Tensor:
        calls.append(images)
        return reduced(images) * (1.01 if len(calls) in (2, 3) else 1)

    assert check_agreement(reduced, undecided, EXAMPLE, **OPTIONS) == (0.0, 3)
    assert not torch.equal(calls[0], calls[2])
    calls.clear()
    with pytest.raises(ExportError):
        check_agreement(model, undecided, EXAMPLE, **OPTIONS)
    assert len(calls) == 2


def test_files_that_belong_together_move_the_main_one_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = []
    replace = os.replace

    def noted(source: object, target: object) -> None:
        moved.append(Path(str(target)))
        replace(source, target)  # type: ignore[arg-type]

    def write(draft: Path) -> None:
        assert draft.name == "a.onnx"
        draft.write_text("one")
        draft.with_name("a.onnx.data").write_text("three")
        assert not (tmp_path / "a.onnx").exists()

    monkeypatch.setattr(os, "replace", noted)
    assert write_files(tmp_path / "a.onnx", write, several=True) == 8
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "a.onnx.data"]
    assert (tmp_path / "a.onnx").read_text() == "one"
    assert moved[-1] == tmp_path / "a.onnx"


@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_left_if_writing_fails(several: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_text("older")

    def write(draft: Path) -> None:
        draft.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_files(path, write, several=several)
    assert os.listdir(tmp_path) == ["a.onnx"]
    assert path.read_text() == "older"


def test_place(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.onnx"
    assert check_place(path, ".onnx") == path
    assert path.parent.is_dir()
    with pytest.raises(ConfigError, match=r"ending in \.onnx, got 'a\.pt2'"):
        check_place(tmp_path / "a.pt2", ".onnx")
    path.write_text("")
    with pytest.raises(OutputExistsError):
        check_place(path, ".onnx")
    assert check_place(path, ".onnx", overwrite=True) == path
    path.rename(path.with_name("a.onnx.data"))
    assert check_place(path, ".onnx") == path
    with pytest.raises(OutputExistsError, match=r"a\.onnx\.data"):
        check_place(path, ".onnx", ".onnx.data")
    with pytest.raises(DataError, match="choose another folder"):
        check_place("/proc/no-such/a.onnx", ".onnx")
