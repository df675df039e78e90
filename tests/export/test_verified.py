"""A file is compared with its model, and put in its place whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tokenred as tr
from tokenred.core.errors import ConfigError, DataError, OutputExistsError, TokenredError
from tokenred.export import ExportError
from tokenred.export.verified import check_agreement, check_place, write_files

OPTIONS: dict[str, Any] = {"batches": (1, 3), "tolerance": 1e-4}


EXAMPLE = torch.zeros(2, 3, 32, 32)


def test_the_same_model_agrees(vit) -> None:  # type: ignore[no-untyped-def]
    reduced = tr.wrap(vit(), tr.strategy("gtp", P=3))
    sizes = []

    def run(images: Tensor) -> Tensor:
        sizes.append(images.shape[0])
        return reduced(images)

    agreement = check_agreement(reduced, run, EXAMPLE, **OPTIONS)
    assert (agreement.difference, agreement.batches, agreement.draws) == (0.0, (1, 3), 1)
    assert sizes == [1, 3]


def test_other_tokens_do_not_agree(vit) -> None:  # type: ignore[no-untyped-def]
    model = vit()
    reduced = tr.wrap(model, tr.strategy("gtp", P=3))
    for name in ("topk", "tome", "random"):
        other = tr.wrap(model, tr.strategy(name))
        with pytest.raises(ExportError, match="at batch sizes 1, 3"):
            check_agreement(reduced, other, EXAMPLE, **OPTIONS)


def test_the_difference_is_relative_to_the_largest_logit(vit) -> None:  # type: ignore[no-untyped-def]
    model = vit()
    for factor, fine in ((1 + 5e-5, True), (1 + 2e-4, False)):
        for scale in (1e-6, 1.0, 1e6):
            model.head.weight.data *= scale
            model.head.bias.data *= scale

            def run(images: Tensor, factor: float = factor) -> Tensor:
                return model(images) * factor

            if fine:
                found = check_agreement(model, run, EXAMPLE, **OPTIONS).difference
                assert found == pytest.approx(5e-5, rel=0.05)
            else:
                with pytest.raises(ExportError, match=r"got a difference of 0\.0002"):
                    check_agreement(model, run, EXAMPLE, **OPTIONS)
            model.head.weight.data /= scale
            model.head.bias.data /= scale


def test_a_batch_size_that_does_not_run_is_named(vit) -> None:  # type: ignore[no-untyped-def]
    model = vit()

    def frozen(images: Tensor) -> Tensor:
        return model(images.view(1, 3, 32, 32))

    with pytest.raises(ExportError, match="does not run on a batch of 3: RuntimeError"):
        check_agreement(model, frozen, EXAMPLE, **OPTIONS)


def test_rounding_may_decide_about_an_image_of_a_reduced_model_only(vit) -> None:  # type: ignore[no-untyped-def]
    model = vit()
    reduced = tr.wrap(model, tr.strategy("gtp", P=3))
    calls = []

    def undecided(images: Tensor) -> Tensor:
        calls.append(images)
        return reduced(images) * (1.01 if len(calls) in (2, 3) else 1)

    agreement = check_agreement(reduced, undecided, EXAMPLE, **OPTIONS)
    assert agreement.draws == 3
    assert agreement.difference == 0.0
    assert not torch.equal(calls[0], calls[2])
    calls.clear()
    with pytest.raises(ExportError):
        check_agreement(model, undecided, EXAMPLE, **OPTIONS)
    assert len(calls) == 2


def test_write_moves_all_files_the_main_one_last(
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
        draft.with_name("b").write_text("")
        assert not (tmp_path / "a.onnx").exists()

    monkeypatch.setattr(os, "replace", noted)
    assert write_files(tmp_path / "a.onnx", write, several=True) == 8
    monkeypatch.undo()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "a.onnx.data", "b"]
    assert (tmp_path / "a.onnx").read_text() == "one"
    assert moved[-1] == tmp_path / "a.onnx"


@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_left_where_writing_fails(several: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_text("older")

    def write(draft: Path) -> None:
        draft.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_files(path, write, several=several)
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
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
    path.unlink()
    (tmp_path / "new" / "a.onnx.data").write_text("")
    assert check_place(path, ".onnx") == path
    with pytest.raises(OutputExistsError, match=r"a\.onnx\.data"):
        check_place(path, ".onnx", ".onnx.data")


def test_a_folder_that_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((DataError, OutputExistsError)):
        check_place(tmp_path / "file" / "a.onnx", ".onnx")
    with pytest.raises(DataError, match="choose another folder"):
        check_place("/proc/no-such/a.onnx", ".onnx")


def test_the_error_is_one_of_ours_and_one_of_pythons() -> None:
    assert issubclass(ExportError, TokenredError)
    assert issubclass(ExportError, RuntimeError)


KILLED = """
import os, signal, sys
from pathlib import Path
from tokenred.export.verified import write_files

def write(draft):
    draft.write_text("half")
    os.kill(os.getpid(), signal.SIGTERM)

write_files(Path(sys.argv[1]), write)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has files without a name")
def test_nothing_is_left_where_it_is_killed(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a.pt2")]
    assert subprocess.run(command, env=environment).returncode == -15
    assert list(tmp_path.iterdir()) == []
