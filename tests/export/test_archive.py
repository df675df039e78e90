"""Archives of torch.export, loaded beside the model and without tokenred."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import tokenred as tr
from tests.static_recipes import static_recipes
from tokenred.core.errors import ConfigError, OutputExistsError, PartError
from tokenred.core.part import Traits
from tokenred.export import ExportError, ExportReport, to_torch_export

THETA = tr.strategy("gtp", graph="spatial", theta=0.6, schedule=tr.PerLayer((3,)))
CASES = {"gtp, theta": ("distilled", THETA), "dense": ("no cls", None)}
SLOW = {name: ("cls", made) for name, made in static_recipes(without=CASES).items()}


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
@pytest.mark.parametrize(
    "name", [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_the_archive_agrees_at_any_batch_size(name: str, vit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    kind, strategy = (CASES | SLOW)[name]
    model = vit(kind) if strategy is None else tr.wrap(vit(kind), strategy)
    report = to_torch_export(model, tmp_path / "m.pt2")
    assert report.difference is not None
    assert report.difference <= 1e-5
    program = torch.export.load(report.path)
    assert set(program.state_dict) == set(model.state_dict())
    loaded = program.module()
    for batch in (1, 2, 7):
        images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            torch.testing.assert_close(loaded(images), model(images), rtol=1e-4, atol=1e-4)


def test_it_needs_neither_tokenred_nor_timm(vit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    reduced = tr.wrap(vit(), tr.strategy("evit", layers=(0,), keep_rate=0.6))
    to_torch_export(reduced, tmp_path / "m.pt2", check=False)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.save((images, reduced(images)), tmp_path / "pair.pt")
    program = (
        "import sys\n"
        "sys.modules['tokenred'] = sys.modules['timm'] = None\n"
        "import torch\n"
        "images, expected = torch.load('pair.pt')\n"
        "got = torch.export.load('m.pt2').module()(images)\n"
        "torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)\n"
    )
    out = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr


def test_report_size_and_one_image_at_a_time(vit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = vit(depth=1, dynamic_img_size=True).bfloat16()
    reduced = tr.wrap(model, tr.strategy("topk", layers=(0,), keep_rate=0.5))
    path = tmp_path / "m.pt2"
    report = to_torch_export(
        reduced, path, image_size=(24, 40), dynamic_batch=False, tolerance=0.05
    )
    assert report == ExportReport(
        path=path,
        format="torch",
        bytes=path.stat().st_size,
        opset=None,
        difference=report.difference,
        batches=(1,),
        draws=report.draws,
        inputs={"images": (1, 3, 24, 40)},
        outputs={"logits": (1, 5)},
    )
    assert str(Path(tr.__file__).parent).encode() not in path.read_bytes()
    loaded = torch.export.load(path).module()
    assert loaded(torch.zeros(1, 3, 24, 40).bfloat16()).dtype == torch.bfloat16
    with pytest.raises(Exception, match=r"shape|size"):
        loaded(torch.zeros(2, 3, 24, 40).bfloat16())


def test_an_archive_that_differs_is_not_left_behind(vit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    class Fickle(tr.Scorer):
        """Other scores in a graph than outside of one."""

        traits: ClassVar[Traits] = Traits()

        def __call__(self, state, attention):  # type: ignore[no-untyped-def]
            sign = -1 if torch.compiler.is_compiling() else 1
            return sign * state.image.norm(dim=-1)

    reduced = tr.wrap(vit(), tr.Strategy(Fickle(), schedule=4))
    with pytest.raises(ExportError, match="expected the exported graph to agree"):
        to_torch_export(reduced, tmp_path / "m.pt2")
    assert os.listdir(tmp_path) == []


def test_refused_before_any_work(vit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model, path = vit(), tmp_path / "m.pt2"
    with pytest.raises(PartError, match="takes a model, got str"):
        to_torch_export("digits", path)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"ending in \.pt2, got 'm\.pt'"):
        to_torch_export(model, tmp_path / "m.pt")
    for tolerance in (0, -1e-4, float("nan"), "1e-4", None, True):
        with pytest.raises(ConfigError, match="tolerance must be a finite number"):
            to_torch_export(model, path, tolerance=tolerance)  # type: ignore[arg-type]
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="overwrite"):
        to_torch_export(model, path)
    assert path.read_text() == "mine"
