"""Archives of torch.export and ONNX files, run beside the model and without tokenred."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tokenred as tr
from tests.static_recipes import static_recipes
from tokenred.attention import FusedEngine, PlainEngine
from tokenred.core.errors import ConfigError, MissingExtraError, OutputExistsError, PartError
from tokenred.export import ExportError, ExportReport, onnx_file, to_onnx, to_torch_export
from tokenred.export.onnx_file import translations
from tokenred.export.traced import trace

NEEDS_ONNX = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))), reason="needs tokenred[export]"
)
FORMATS = ["torch", pytest.param("onnx", marks=NEEDS_ONNX)]
THETA = tr.strategy("gtp", graph="spatial", theta=0.6, schedule=tr.PerLayer((3,)))
CASES: dict[str, tuple[str, tr.Strategy | None]] = {
    "gtp, theta": ("distilled", THETA),
    "dense": ("no cls", None),
}
RECIPES = static_recipes()
# Together these have every operator that any recipe has.
AS_FILES = (
    "atc", "cubistmerge", "diffrate", "dpcknn", "dynamicvit", "frequency", "gtp", "idlevit", "mstm",
    "pitome", "sinkhorn", "tofu", "uniform",
)  # fmt: skip
UNTRAINED = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


def export(kind: str, model: Any, folder: Path, **options: Any) -> ExportReport:
    if kind == "torch":
        return to_torch_export(model, folder / "m.pt2", **options)
    return to_onnx(model, folder / "m.onnx", **options)


def loaded(path: Path) -> Callable[[Tensor], Tensor]:
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def check_any_batch_size(run: Callable[[Tensor], Tensor], model: nn.Module) -> None:
    for batch in (1, 2, 7):
        images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            torch.testing.assert_close(run(images), model(images), rtol=1e-4, atol=1e-4)


def check_file(kind: str, model: nn.Module, folder: Path) -> None:
    report = export(kind, model, folder)
    assert report.difference is not None
    assert report.difference <= 1e-5
    check_any_batch_size(loaded(report.path), model)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_the_file_agrees_at_any_batch_size(kind: str, name: str, vit: Any, tmp_path: Path) -> None:
    form, strategy = CASES[name]
    check_file(kind, vit(form) if strategy is None else tr.wrap(vit(form), strategy), tmp_path)


@NEEDS_ONNX
@pytest.mark.slow
@UNTRAINED
@pytest.mark.parametrize("name", AS_FILES)
def test_the_onnx_file_of_a_recipe_agrees(name: str, vit: Any, tmp_path: Path) -> None:
    check_file("onnx", tr.wrap(vit(), RECIPES[name]), tmp_path)


@pytest.mark.slow
@UNTRAINED
def test_the_graph_of_every_recipe_agrees_and_has_no_other_operators(vit: Any) -> None:
    models = {name: tr.wrap(vit(), strategy) for name, strategy in RECIPES.items()}
    models["no cls"] = tr.wrap(vit("no cls"), tr.strategy("topk", layers=(1,), keep_rate=0.6))
    operators = {}
    for name, model in models.items():
        engines = (FusedEngine(), PlainEngine())
        program = trace(model, None, dynamic_batch=True, engines=engines).program
        check_any_batch_size(program.module(), model)
        nodes = program.graph.nodes
        operators[name] = {str(node.target) for node in nodes if node.op == "call_function"}
    assert set().union(*operators.values()) == set().union(*(operators[n] for n in AS_FILES))


@pytest.mark.parametrize("kind", FORMATS)
def test_report_size_and_one_image_at_a_time(kind: str, vit: Any, tmp_path: Path) -> None:
    model = vit(depth=1, dynamic_img_size=True)
    reduced = tr.wrap(model, tr.strategy("topk", layers=(0,), keep_rate=0.5))
    options = {} if kind == "torch" else {"opset": 18}
    report = export(kind, reduced, tmp_path, image_size=(24, 40), dynamic_batch=False, **options)
    content = report.path.read_bytes()
    assert report == ExportReport(
        path=report.path,
        format=kind,
        bytes=len(content),
        opset=options.get("opset"),
        difference=report.difference,
        batches=(1,),
        draws=report.draws,
        inputs={"images": (1, 3, 24, 40)},
        outputs={"logits": (1, 5)},
    )
    assert os.listdir(tmp_path) == [report.path.name]
    assert str(Path(tr.__file__).parent).encode() not in content
    with pytest.raises(Exception, match=r"shape|size|dimension"):
        loaded(report.path)(torch.zeros(2, 3, 24, 40))


def test_an_archive_needs_neither_tokenred_nor_timm(vit: Any, tmp_path: Path) -> None:
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


class Fickle(tr.Scorer):
    """Other scores in a graph than outside of one."""

    def __call__(self, state: Any, attention: Any) -> Tensor:
        sign = -1 if torch.compiler.is_compiling() else 1
        return sign * state.image.norm(dim=-1)


class Untranslatable(tr.Scorer):
    def __call__(self, state: Any, attention: Any) -> Tensor:
        return torch.special.bessel_j0(state.image.mean(dim=-1))


@pytest.mark.parametrize("kind", FORMATS)
def test_what_does_not_become_a_good_file_leaves_none_behind(
    kind: str, vit: Any, tmp_path: Path
) -> None:
    path = tmp_path / ("m.pt2" if kind == "torch" else "m.onnx")
    path.write_text("older")
    with pytest.raises(OutputExistsError, match="overwrite"):
        export(kind, vit(depth=1), tmp_path)
    with pytest.raises(ExportError, match=r"got a difference of .* at batch sizes 1, 3"):
        export(kind, tr.wrap(vit(), tr.Strategy(Fickle(), schedule=4)), tmp_path, overwrite=True)
    if kind == "onnx":
        reduced = tr.wrap(vit(depth=1), tr.Strategy(Untranslatable(), schedule=2))
        message = r"no translation of \w+\.\w*bessel_j0.*to_torch_export"
        with pytest.raises(ExportError, match=message):
            export(kind, reduced, tmp_path, overwrite=True)
        with pytest.raises(ExportError, match="onnxruntime cannot open"):
            export(kind, vit(depth=1).bfloat16(), tmp_path, overwrite=True)
    assert path.read_text() == "older"
    assert os.listdir(tmp_path) == [path.name]


def test_refused_before_any_work(vit: Any, tmp_path: Path) -> None:
    model, path = vit(), tmp_path / "m.pt2"
    with pytest.raises(PartError, match="takes a model, got str"):
        to_torch_export("digits", path)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"ending in \.pt2, got 'm\.pt'"):
        to_torch_export(model, tmp_path / "m.pt")
    for tolerance in (0, float("nan"), "1e-4", None):
        with pytest.raises(ConfigError, match="tolerance must be a finite number"):
            to_torch_export(model, path, tolerance=tolerance)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- ONNX alone


@NEEDS_ONNX
def test_weights_beside_the_file_if_they_are_too_large(
    vit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert report.bytes == path.stat().st_size + beside.stat().st_size
    # Read from where they are now, not from where they were drafted.
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(path)(images), model(images), rtol=1e-4, atol=1e-4)


@NEEDS_ONNX
@pytest.mark.slow
def test_newer_opsets_run_too(vit: Any, tmp_path: Path) -> None:
    # From opset 23 on there is an operator for attention; its mask is not PyTorch's.
    weighed = tr.strategy("topk", layers=(0,), fuser="fused_token", proportional_attention=True)
    assert to_onnx(tr.wrap(vit(), weighed), tmp_path / "m.onnx", opset=23).opset == 23


@NEEDS_ONNX
def test_what_onnx_lacks_is_said_before_any_work(
    vit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for opset in (17, True, 10_000):
        with pytest.raises(ConfigError, match="opset"):
            to_onnx(vit(), tmp_path / "m.onnx", opset=opset)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(MissingExtraError, match=rf"{package}: .* 'tokenred\[export\]'"):
                to_onnx(vit(), tmp_path / "m.onnx")
    assert os.listdir(tmp_path) == []


class Several(nn.Module):
    """Several calls of operators, as one graph."""

    def __init__(self, *calls: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(call(x) for call in self.calls)


@NEEDS_ONNX
def test_operators_that_pytorch_does_not_translate(tmp_path: Path) -> None:
    import onnxruntime

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
