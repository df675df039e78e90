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

CONFIG: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5
}  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tiny() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**CONFIG).eval()


@pytest.fixture
def plain(tiny: VisionTransformer) -> str:
    save_file(tiny.state_dict(), "plain.safetensors", metadata={"config": json.dumps(CONFIG)})
    return "plain.safetensors"


@pytest.fixture
def saved(tiny: VisionTransformer) -> str:
    reduced = tr.wrap(tiny, tr.strategy("topk", layers=(0,), keep_rate=0.5))
    return str(tr.save(reduced, "saved.safetensors"))


def _loaded(path: str) -> torch.nn.Module:
    return torch.export.load(path).module()


def _same(got: torch.nn.Module, expected: torch.nn.Module, size: tuple[int, int]) -> None:
    images = torch.randn(3, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(got(images), expected(images), rtol=1e-4, atol=1e-4)


def test_onnx(run, plain: str, tiny: VisionTransformer) -> None:  # type: ignore[no-untyped-def]
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


def test_what_save_wrote_brings_its_strategy(run, saved: str) -> None:  # type: ignore[no-untyped-def]
    result = run("export", "--model", saved, "-o", "m.pt2")
    assert result.exit_code == 0, result.output
    assert "torch.export" in result.stdout
    _same(_loaded("m.pt2"), tr.load(saved), (32, 32))


def test_another_strategy_size_and_batch_for_it(run, saved: str) -> None:  # type: ignore[no-untyped-def]
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


def test_its_own_strategy_at_another_size(run, saved: str) -> None:  # type: ignore[no-untyped-def]
    result = run("export", "--model", saved, "-o", "m.pt2", "--image-size", 48, 48)
    assert result.exit_code == 0, result.output
    base = tr.load(saved).base
    base.set_input_size(img_size=(48, 48))  # type: ignore[operator]
    expected = tr.wrap(base, tr.strategy("topk", layers=(0,), keep_rate=0.5))
    _same(_loaded("m.pt2"), expected, (48, 48))


def test_dense_and_an_older_file(run, plain: str, tiny: VisionTransformer) -> None:  # type: ignore[no-untyped-def]
    Path("m.pt2").write_text("mine")
    result = run("export", "--model", plain, "-o", "m.pt2")
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert Path("m.pt2").read_text() == "mine"
    result = run("export", "--model", plain, "-o", "m.pt2", "--overwrite", "--tolerance", 1e-3)
    assert result.exit_code == 0, result.output
    _same(_loaded("m.pt2"), tiny, (32, 32))
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_a_package_that_is_missing(  # type: ignore[no-untyped-def]
    run, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    result = run("export", "--model", plain, "-o", "m.onnx")
    assert result.exit_code == 2
    assert "pip install 'tokenred[export]'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "m.bin"], "expected --output to end in .onnx or .pt2, got 'm.bin'"),
        (["-o", "m.onnx", "--format", "onx"], "Did you mean 'onnx'?"),
        (["-o", "m.pt2", "--format", "onnx"], "ending in .onnx, got 'm.pt2'"),
        (["-o", "m.pt2", "--batch-size", "4"], "unknown batch size '4'"),
        (["-o", "m.pt2", "--opset", "20"], "--opset is for ONNX"),
        (["-o", "/proc/none/m.pt2"], "choose another folder"),
        (["-o", "m.pt2", "-s", "nothing"], "unknown strategy 'nothing'"),
        (["-o", "m.pt2", "-s", "gtp:P=60"], "60 tokens"),
        (["-o", "m.pt2", "--model", "deit_small_patch16_22"], "Did you mean"),
        (["-o", "m.pt2", "--model", "nowhere.safetensors"], "nowhere.safetensors"),
        (["-o", "m.pt2", "--tolerance", "0"], "tolerance"),
        (["-o", "m.pt2", "--image-size", "33", "32"], "33x32"),
        (["-o", "m.onnx", "--opset", "3"], "opset between 18"),
    ],
)
def test_refused(run, arguments: list[str], message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("export", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("tokenred: ")
    assert list(tmp_path.iterdir()) == []


def test_a_saved_file_has_weights_of_its_own(run, saved: str) -> None:  # type: ignore[no-untyped-def]
    result = run("export", "--model", saved, "-o", "m.pt2", "--random-weights")
    assert result.exit_code == 2
    assert "weights of its own" in result.stderr


def test_counts_that_hang_on_the_images_are_refused_with_the_reason(  # type: ignore[no-untyped-def]
    run, plain: str
) -> None:
    @tr.selectors.register("Choosy")
    class Choosy(tr.Selector):
        """As many tokens as the images want."""

        def adaptive(self, layer: int, depth: int) -> bool:
            return True

    result = run("export", "--model", plain, "-o", "m.pt2", "-s", "topk:scorer=Choosy")
    assert result.exit_code == 2
    assert "looks at the images to decide how many tokens go" in result.stderr
