"""ONNX files, run by onnxruntime beside the model."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import tokenred as tr
from tests.static_recipes import static_recipes
from tokenred.core.errors import ConfigError, MissingExtraError, OutputExistsError
from tokenred.core.part import Traits
from tokenred.export import ExportError, ExportReport, onnx_file, to_onnx
from tokenred.export.onnx_file import translations

onnx = pytest.importorskip("onnx", reason="needs the extra tokenred[export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra tokenred[export]")
pytest.importorskip("onnxscript", reason="needs the extra tokenred[export]")

THETA = tr.strategy("gtp", graph="spatial", theta=0.6, schedule=tr.PerLayer((3,)))
CASES = {"gtp, theta": ("distilled", THETA), "dense": ("no cls", None)}
SLOW = {
    "gtp": ("cls", tr.strategy("gtp", P=3, M=3)),
    "tome": ("cls", tr.strategy("tome", r=[3])),
    "evit": ("cls", tr.strategy("evit", layers=(0, 1), keep_rate=0.6)),
    "idlevit": ("cls", tr.strategy("idlevit", layers=(1,), keep_ratios=(0.6,))),
    "no cls": ("no cls", tr.strategy("topk", layers=(1,), keep_rate=0.6)),
}
SLOW |= {name: ("cls", made) for name, made in static_recipes(without=SLOW).items()}


def run(path: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    return torch.from_numpy(logits)


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
@pytest.mark.parametrize(
    "name", [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_onnxruntime_agrees_at_any_batch_size(name: str, vit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    kind, strategy = (CASES | SLOW)[name]
    model = vit(kind) if strategy is None else tr.wrap(vit(kind), strategy)
    report = to_onnx(model, tmp_path / "m.onnx")
    assert report.difference is not None
    assert report.difference <= 1e-5
    for batch in (1, 2, 7):
        images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected = model(images)
        difference = (run(report.path, images) - expected).abs().max()
        assert difference <= 1e-4 * expected.abs().max()


def test_report_size_and_one_image_at_a_time(vit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = vit(depth=1, dynamic_img_size=True)
    reduced = tr.wrap(model, tr.strategy("topk", layers=(0,), keep_rate=0.5))
    path = tmp_path / "new" / "m.onnx"
    report = to_onnx(reduced, path, image_size=(24, 40), dynamic_batch=False, opset=18)
    assert report == ExportReport(
        path=path,
        format="onnx",
        bytes=path.stat().st_size,
        opset=18,
        difference=report.difference,
        batches=(1,),
        draws=1,
        inputs={"images": (1, 3, 24, 40)},
        outputs={"logits": (1, 5)},
    )
    assert os.listdir(path.parent) == ["m.onnx"]
    assert str(Path(tr.__file__).parent).encode() not in path.read_bytes()
    written = onnx.load(path)
    assert [opset.version for opset in written.opset_import] == [18]
    for report_ports, ports in (
        (report.inputs, written.graph.input),
        (report.outputs, written.graph.output),
    ):
        shapes = {p.name: tuple(d.dim_value for d in p.type.tensor_type.shape.dim) for p in ports}
        assert shapes == report_ports


def test_weights_beside_the_file_if_they_are_too_large(  # type: ignore[no-untyped-def]
    vit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "_ONE_FILE", 1000)
    model, path = vit(depth=1), tmp_path / "m.onnx"
    beside = tmp_path / "m.onnx.data"
    beside.write_text("mine")
    with pytest.raises(OutputExistsError, match=r"m\.onnx\.data"):
        to_onnx(model, path)
    assert beside.read_text() == "mine"
    report = to_onnx(model, path, check=False, overwrite=True)
    assert (report.difference, report.batches, report.draws) == (None, (), 0)
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "m.onnx.data"]
    weights = sum(weight.numel() * 4 for weight in model.parameters())
    assert beside.stat().st_size > 0.9 * weights
    assert report.bytes == path.stat().st_size + beside.stat().st_size
    # Read from where they are now, not from where they were drafted.
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(run(path, images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_newer_opsets_run_too(vit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    # From opset 23 on there is an operator for attention; its mask is not PyTorch's.
    weighed = tr.strategy("topk", layers=(0,), fuser="fused_token", proportional_attention=True)
    reduced = tr.wrap(vit(), weighed)
    assert to_onnx(reduced, tmp_path / "m.onnx", opset=23).opset == 23


@pytest.mark.parametrize("opset", [17, True, 10_000])
def test_an_unusable_opset_is_refused_before_any_work(  # type: ignore[no-untyped-def]
    opset: object, vit, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="opset"):
        to_onnx(vit(), tmp_path / "new" / "m.onnx", opset=opset)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_package_that_is_missing_is_named(  # type: ignore[no-untyped-def]
    package: str, vit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}, not .* 'tokenred\[export\]'"):
        to_onnx(vit(), tmp_path / "m.onnx")
    assert os.listdir(tmp_path) == []


class Untranslatable(tr.Scorer):
    traits: ClassVar[Traits] = Traits()

    def __call__(self, state, attention):  # type: ignore[no-untyped-def]
        return torch.special.bessel_j0(state.image.mean(dim=-1))


def test_what_does_not_become_a_good_file_leaves_none_behind(vit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "m.onnx"
    path.write_text("older")
    reduced = tr.wrap(vit(depth=1), tr.Strategy(Untranslatable(), schedule=2))
    with pytest.raises(ExportError, match=r"no translation of \w+\.\w*bessel_j0.*to_torch_export"):
        to_onnx(reduced, path, overwrite=True)
    with pytest.raises(ExportError, match=r"got a difference of .* at batch sizes 1, 3"):
        to_onnx(vit(depth=1), path, tolerance=1e-12, overwrite=True)
    with pytest.raises(ExportError, match="onnxruntime cannot open"):
        to_onnx(vit(depth=1).bfloat16(), path, overwrite=True)
    assert path.read_text() == "older"
    assert os.listdir(tmp_path) == ["m.onnx"]


# ---------------------------------------------------------------- our translations

Outputs = tuple[Tensor, ...]


class Several(nn.Module):
    """Several calls of operators, as one graph."""

    def __init__(self, *calls: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, x: Tensor) -> Outputs:
        return tuple(call(x) for call in self.calls)


def test_operators_that_pytorch_does_not_translate(tmp_path: Path) -> None:
    model = Several(
        lambda x: x.sort(dim=1, descending=True, stable=True).indices,
        lambda x: x.sort(dim=-1, stable=True).indices,
        lambda x: x.sort(dim=1, descending=True, stable=True).values,
        lambda x: x.transpose(0, 1).sort(dim=0, stable=True).indices,
        lambda x: x.to(torch.int64).sort(dim=1, descending=True, stable=True).indices,
        lambda x: torch.kthvalue(x, 1, dim=-1, keepdim=True).values,
        lambda x: torch.kthvalue(x, 785, dim=1).values,
        # Which of several equal entries is meant is left open; it has to be one of them.
        lambda x: x.gather(1, torch.kthvalue(x, 20, dim=1, keepdim=True).indices),
    )
    x = torch.randint(5, (3, 785), generator=torch.Generator().manual_seed(0)).float()
    x[0] = 2.0
    x[1, ::2] = -torch.inf
    program = torch.export.export(model, (x[:2],), dynamic_shapes=({0: torch.export.Dim("b")},))
    path = tmp_path / "m.onnx"
    torch.onnx.export(
        program, (), dynamo=True, verbose=False, custom_translation_table=translations()
    ).save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    for got, expected in zip(found, model(x), strict=True):
        assert torch.equal(torch.from_numpy(got), expected)
