"""Reduced models in the hands of tracers, of torch.func, and with empty batches."""

import io
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import tokenred as tr
from tests.static_recipes import static_recipes
from tokenred.core.capture import replace

TINY = {
    "img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 5,
}  # fmt: skip
STATIC = static_recipes() | {
    "gtp, P=2": tr.strategy("gtp", P=2, M=3),
    "gtp, semantic": tr.strategy("gtp", P=2, M=3, graph="semantic"),
    "gtp, sparse": tr.strategy("gtp", P=2, M=3, graph="spatial", theta=0.6),
    "tome, r=2": tr.strategy("tome", r=2),
}
# Their default is more than so few tokens can give.
del STATIC["gtp"], STATIC["tome"]
ALL = STATIC | {"ats": tr.strategy("ats")}
# One of each mechanism by default.
QUICK = ("gtp, sparse", "tome, r=2", "evit", "dynamicvit", "evo-vit")
TRIED = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in STATIC]
BASES: dict[str, Any] = {
    "vit": lambda: VisionTransformer(**TINY),
    "eva": lambda: Eva(**TINY, use_rot_pos_emb=True),
    "beit": lambda: Beit(**TINY, use_rel_pos_bias=True),
}
# Tracers and vmap warn: of sizes that become constants, of operators that run sample by sample.
pytestmark = pytest.mark.filterwarnings("ignore")


def _wrap(strategy: tr.Strategy, base: str = "vit") -> tr.ReducedViT:
    torch.manual_seed(0)
    model: nn.Module = BASES[base]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return tr.wrap(model, strategy).eval()


def _images(count: int) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(count))


# On other backbones what they do themselves: positions that follow their tokens.
_ON_OTHERS = [
    (name, base) for name in ("evit", "gtp, P=2", "tome, r=2") for base in ("eva", "beit")
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "base"), [*((name, "vit") for name in QUICK), *_ON_OTHERS])
def test_a_trace_is_right_at_any_batch_size(name: str, base: str) -> None:
    reduced = _wrap(STATIC[name], base)
    # With one image nothing tells what belongs to an image from what all images share.
    with torch.jit.optimized_execution(False):
        traced = torch.jit.trace(reduced, _images(1), check_trace=False)
        images = _images(3)
        torch.testing.assert_close(traced(images), reduced(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TRIED)
def test_vmap_and_gradients_of_each_sample(name: str) -> None:
    reduced, images = _wrap(STATIC[name]), _images(3)

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(reduced, parameters, (image[None],)).square().sum()

    with torch.no_grad():
        batched = vmap(lambda image: reduced(image[None])[0])(images)
        torch.testing.assert_close(batched, reduced(images), rtol=1e-5, atol=1e-5)
    each = vmap(grad(loss), in_dims=(None, 0))(dict(reduced.named_parameters()), images)
    reduced(images[2:]).square().sum().backward()
    for key, parameter in reduced.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(each[key][2], parameter.grad, rtol=1e-4, atol=1e-5)


def test_counts_that_the_images_decide() -> None:
    reduced = _wrap(tr.strategy("ats"))
    with pytest.raises(tr.errors.ConfigError, match="depend on the images"):
        torch.jit.trace(reduced, _images(2))
    with pytest.raises(tr.errors.ConfigError, match="depend on the images"):
        vmap(lambda image: reduced(image[None])[0])(_images(2))
    with pytest.raises(tr.errors.ConfigError, match="depend on the images"):
        torch.export.export(reduced, (_images(2),), strict=False)


def test_open_height_and_width() -> None:
    torch.manual_seed(0)
    base = VisionTransformer(**TINY, dynamic_img_size=True).eval()
    side = 4 * torch.export.Dim("side", min=3, max=20)
    with pytest.raises(tr.errors.ConfigError, match="one graph per image size"):
        torch.export.export(
            tr.wrap(base, "uniform"), (torch.randn(2, 3, 24, 16),), dynamic_shapes=({2: side},),
            strict=False,
        )  # fmt: skip


def test_fx_and_script() -> None:
    reduced = _wrap(tr.strategy("evit"))
    with pytest.raises(tr.errors.ConfigError, match=r"torch.fx cannot.*torch.export"):
        torch.fx.symbolic_trace(reduced)
    with pytest.raises(
        tr.errors.ConfigError, match=r"torch.jit.script does not support.*torch.export"
    ):
        torch.jit.script(reduced)


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pytorchs_own_way_to_onnx(dynamo: bool) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(Exception, match=r"tokenred.export.to_onnx"):  # PyTorch wraps it
        torch.onnx.export(_wrap(tr.strategy("evit")), (_images(2),), io.BytesIO(), dynamo=dynamo)


ENGINES = [("gtp, sparse", engine) for engine in ("plain", "tiled", "two_calls")]


@pytest.mark.parametrize(("name", "engine"), [*((name, "auto") for name in ALL), *ENGINES])
def test_an_empty_batch(name: str, engine: str) -> None:
    reduced, none = tr.wrap(_wrap(ALL[name]), ALL[name], engine=engine), _images(0)
    for grad_too in (False, True):
        with torch.set_grad_enabled(grad_too):
            assert reduced(none).shape == (0, 5)
            logits, trace = reduced.run_with_trace(none)
            assert logits.shape == (0, 5)
            assert trace.owners().shape == (0, 16)
            for fill in ("last", "own", "nearest", "zero"):
                features = reduced.forward_features(none, unreduce=True, fill=fill)
                assert features.shape == (0, 17, 32)
                assert trace.unreduce(reduced.forward_features(none), fill).shape == (0, 16, 32)
            assert reduced.kept_tokens(none, owners=True).sorted().dense().shape == (0, 32, 4, 4)
            assert [m.shape for m in tr.features(reduced)(none)] == [(0, 32, 4, 4)] * 3
    reduced.train()
    reduced.forward_train(none)[0].sum().backward()


@pytest.mark.parametrize(("name", "base"), _ON_OTHERS)
def test_an_empty_batch_on_other_backbones(name: str, base: str) -> None:
    assert _wrap(ALL[name], base)(_images(0)).shape == (0, 5)


@dataclass(frozen=True)
class Pair:
    kind: ClassVar[str] = "pair"
    left: int
    right: int = 2
    made: int = field(init=False, default=3)


def test_a_copy_with_changes() -> None:
    one = Pair(1)
    other = replace(one, right=5)
    assert (one.left, one.right) == (1, 2)
    assert (other.left, other.right, other.made) == (1, 5, 3)
    with pytest.raises(TypeError, match="middle"):
        replace(one, middle=1)
