"""``tokenred export`` on a tiny model of every origin."""

import json
import re
import sys
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
PLAIN, SAVED = "plain.safetensors", "saved.safetensors"


@pytest.fixture
def tiny(run: Run) -> VisionTransformer:
    """A model, which lies in the working folder, and reduced beside it."""
    torch.manual_seed(0)
    model = VisionTransformer(**CONFIG).eval()
    save_file(model.state_dict(), PLAIN, metadata={"config": json.dumps(CONFIG)})
    tr.save(tr.wrap(model, tr.strategy("topk", layers=(0,), keep_rate=0.5)), SAVED)
    return model


def _same(path: str, expected: torch.nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        got = torch.export.load(path).module()(images)
        torch.testing.assert_close(got, expected(images), rtol=1e-4, atol=1e-4)


def test_onnx(run: Run, tiny: VisionTransformer) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra tokenred[export]")
    strategy = "topk:layers=(0,),keep_rate=0.5"
    result = run("export", "--model", PLAIN, "-s", strategy, "-o", "new/m.onnx", "--opset", 18)
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
    images = torch.randn(2, 3, 32, 32)
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = tr.load(SAVED)(images)
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)


def test_dense_and_an_older_file(run: Run, tiny: VisionTransformer) -> None:
    Path("m.pt2").write_text("mine")
    assert "--overwrite" in run("export", "--model", PLAIN, "-o", "m.pt2").refusal
    assert Path("m.pt2").read_text() == "mine"
    result = run("export", "--model", PLAIN, "-o", "m.pt2", "--overwrite", "--tolerance", 1e-3)
    assert result.exit_code == 0, result.output
    _same("m.pt2", tiny, torch.randn(3, 3, 32, 32))
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("own", [True, False], ids=["its own strategy", "another"])
def test_what_save_wrote_at_another_size(run: Run, tiny: VisionTransformer, own: bool) -> None:
    words = ["--image-size", "24x40", "--no-check"]
    words += [] if own else ["-s", "random@0.8", "--batch-size", "fixed", "--format", "torch"]
    result = run("export", "--model", SAVED, "-o", "m.pt2", *words)
    assert result.exit_code == 0, result.output
    assert "check   left out" in result.stdout
    assert f"images ({'batch' if own else 1}, 3, 24, 40)" in result.stdout
    base = tr.load(SAVED).base
    base.set_input_size(img_size=(24, 40))  # type: ignore[operator]
    strategy = tr.strategy("topk", layers=(0,), keep_rate=0.5)
    if not own:
        budget = tr.Budget(0.8 * tr.gmacs(base), tr.KeepRatio())
        strategy = tr.strategy("random", schedule=budget)
    _same("m.pt2", tr.wrap(base, strategy), torch.randn(3 if own else 1, 3, 24, 40))


def test_refused(run: Run, tiny: VisionTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    @tr.selectors.register("Choosy")
    class Choosy(tr.Selector):
        """As many tokens as the images want."""

        def adaptive(self, layer: int, depth: int) -> bool:
            return True

    for words, told in (
        (f"{PLAIN} -s topk:scorer=Choosy", "looks at the images to decide how many tokens"),
        (f"{SAVED} --random-weights", "contains its own weights"),
    ):
        assert told in run("export", "-o", "m.pt2", "--model", *words.split()).refusal
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "pip install 'tokenred[export]'" in run("export", "-o", "m.onnx").refusal
