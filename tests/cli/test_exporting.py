"""``tokenred export`` on a tiny model of every origin."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tests.cli.conftest import Run

CONFIG: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5
}  # fmt: skip


@pytest.fixture
def tiny() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**CONFIG).eval()


@pytest.fixture
def plain(run: Run, tiny: VisionTransformer) -> str:
    save_file(tiny.state_dict(), "plain.safetensors", metadata={"config": json.dumps(CONFIG)})
    return "plain.safetensors"


@pytest.fixture
def saved(run: Run, tiny: VisionTransformer) -> str:
    reduced = tr.wrap(tiny, tr.strategy("topk", layers=(0,), keep_rate=0.5))
    return str(tr.save(reduced, "saved.safetensors"))


def _loaded(path: str) -> torch.nn.Module:
    return torch.export.load(path).module()


def _same(got: torch.nn.Module, expected: torch.nn.Module, size: tuple[int, int]) -> None:
    images = torch.randn(3, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(got(images), expected(images), rtol=1e-4, atol=1e-4)


def test_onnx(run: Run, plain: str, tiny: VisionTransformer) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra tokenred[export]")
    strategy = "topk:layers=(0,),keep_rate=0.5"
    result = run("export", "--model", plain, "-s", strategy, "-o", "new/m.onnx", "--opset", 18)
    assert result.exit_code == 0, result.output
    lines = [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()]
    size = Path("new/m.onnx").stat().st_size / 1e6
    assert lines[:5] == [
        ["file", "new/m.onnx"],
        ["format", "ONNX, opset 18"],
        ["size", f"{size:.1f} MB"],
        ["input", "images (batch, 3, 32, 32)"],
        ["output", "logits (batch, 5)"],
    ]
    assert re.fullmatch(r"differs by \S+ of the largest logit \(batch of 1 and 3\)", lines[5][1])
    session = onnxruntime.InferenceSession("new/m.onnx", providers=["CPUExecutionProvider"])
    reduced = tr.wrap(tiny, tr.strategy("topk", layers=(0,), keep_rate=0.5))
    images = torch.randn(2, 3, 32, 32)
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), reduced(images), rtol=1e-4, atol=1e-4)


def test_what_save_wrote_brings_its_strategy(run: Run, saved: str) -> None:
    result = run("export", "--model", saved, "-o", "m.pt2")
    assert result.exit_code == 0, result.output
    assert "torch.export" in result.stdout
    _same(_loaded("m.pt2"), tr.load(saved), (32, 32))


def test_another_strategy_size_and_batch_for_it(run: Run, saved: str) -> None:
    options = ("--format", "torch", "--image-size", 24, 40, "--batch-size", "fixed", "--no-check")
    result = run("export", "--model", saved, "-s", "random@0.8", "-o", "m.pt2", *options)
    assert result.exit_code == 0, result.output
    assert "images (1, 3, 24, 40)" in result.stdout
    assert "check   left out" in result.stdout
    base = tr.load(saved).base
    base.set_input_size(img_size=(24, 40))  # type: ignore[operator]
    budget = tr.Budget(0.8 * tr.gmacs(base), shape="ratio")
    expected = tr.wrap(base, tr.strategy("random", schedule=budget))
    image = torch.randn(1, 3, 24, 40)
    with torch.no_grad():
        torch.testing.assert_close(_loaded("m.pt2")(image), expected(image), rtol=1e-4, atol=1e-4)


def test_its_own_strategy_at_another_size(run: Run, saved: str) -> None:
    result = run("export", "--model", saved, "-o", "m.pt2", "--image-size", 48, 48)
    assert result.exit_code == 0, result.output
    base = tr.load(saved).base
    base.set_input_size(img_size=(48, 48))  # type: ignore[operator]
    expected = tr.wrap(base, tr.strategy("topk", layers=(0,), keep_rate=0.5))
    _same(_loaded("m.pt2"), expected, (48, 48))


def test_dense_and_an_older_file(run: Run, plain: str, tiny: VisionTransformer) -> None:
    Path("m.pt2").write_text("mine")
    result = run("export", "--model", plain, "-o", "m.pt2")
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert Path("m.pt2").read_text() == "mine"
    result = run("export", "--model", plain, "-o", "m.pt2", "--overwrite", "--tolerance", 1e-3)
    assert result.exit_code == 0, result.output
    _same(_loaded("m.pt2"), tiny, (32, 32))
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_a_package_that_is_missing(run: Run, plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    result = run("export", "--model", plain, "-o", "m.onnx")
    assert result.exit_code == 2
    assert "pip install 'tokenred[export]'" in result.stderr


def test_a_saved_file_has_weights_of_its_own(run: Run, saved: str) -> None:
    result = run("export", "--model", saved, "-o", "m.pt2", "--random-weights")
    assert result.exit_code == 2
    assert "weights of its own" in result.stderr


def test_counts_that_depend_on_the_images_are_refused_with_the_reason(run: Run, plain: str) -> None:
    @tr.selectors.register("Choosy")
    class Choosy(tr.Selector):
        """As many tokens as the images want."""

        def adaptive(self, layer: int, depth: int) -> bool:
            return True

    result = run("export", "--model", plain, "-o", "m.pt2", "-s", "topk:scorer=Choosy")
    assert result.exit_code == 2
    assert "looks at the images to decide how many tokens go" in result.stderr
