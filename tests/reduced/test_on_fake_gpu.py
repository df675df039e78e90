"""Every two of a recipe, a family of backbones and a precision, on a GPU that is not there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from torch import nn

import tokenred as tr
from tests.backbones.forms import TINY, hugging_face
from tests.fake_gpu import fake_gpu, to_fake_gpu
from tests.static_recipes import static_recipes
from tests.strategies.recipes.checks import FORMS, SMALL

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "vit": FORMS["cls"],
    "vit, q/k-norm": FORMS["registers"],
    "no cls": FORMS["no cls"],
    "distilled": FORMS["distilled"],
    "lvvit": FORMS["lvvit"],
    "beit": lambda: Beit(**SMALL, use_rel_pos_bias=True),
    "eva": lambda: Eva(**TINY, init_values=0.5),
    "hf deit": lambda: hugging_face("DeiTForImageClassification"),
    "hf clip": lambda: hugging_face("CLIPForImageClassification"),
}


# Types of the weights and of autocast.
PRECISIONS: dict[str, tuple[torch.dtype, torch.dtype | None]] = {
    "fp32": (FP32, None),
    "bf16": (BF16, None),
    "fp16": (FP16, None),
    "autocast to bf16": (FP32, BF16),
    "autocast to fp16": (FP32, FP16),
}
METHODS = static_recipes(without=("gtp", "tome")) | {
    "gtp": tr.strategy("gtp", P=2, M=3),
    "gtp, sparse": tr.strategy("gtp", P=2, M=3, theta=0.6),
    "gtp, lists": tr.strategy("gtp", P=2, M=3, graph="none", fuser="merge", scorer="CosSim"),
    "tome": tr.strategy("tome", r=3),
}
# By default what has gone wrong: a norm of queries and keys under autocast, and Hugging Face.
OFTEN = [(method, "vit, q/k-norm", "autocast to bf16") for method in METHODS]
OFTEN += [("gtp", family, "fp16") for family in FAMILIES if family.startswith("hf")]
# Every pair of a method, a family and a precision is in one of these.
TYPES = list(PRECISIONS)
TRIED = [
    (method, family, TYPES[(i + j) % len(TYPES)])
    for i, method in enumerate(METHODS)
    for j, family in enumerate(FAMILIES)
]


def _runs(
    method: str,
    family: str,
    precision: str,
    patch: pytest.MonkeyPatch,
    engine: str = "auto",
    capability: int = 9,
) -> None:
    weights, autocast = PRECISIONS[precision]
    model = FAMILIES[family]()
    strategy = METHODS[method]
    if any(scorer.needs_cls for scorer in [strategy.selector.traits, strategy.router.traits]) and (
        family == "no cls"
    ):
        pytest.skip("needs a CLS token")
    # Wrapped first: what is made by then must follow the weights.
    reduced = tr.wrap(model.eval(), strategy, engine=engine)
    with fake_gpu(patch, autocast=autocast, capability=capability):
        to_fake_gpu(model, reduced, dtype=weights)
        first = next(model.parameters())
        reduced._place = (first.device, first.dtype)  # learned parts came along
        logits = reduced(torch.empty(2, *_shape(model), dtype=weights, device="cuda"))
    assert logits.shape == (2, 5)
    assert logits.device.type == "cuda"
    assert logits.dtype == (autocast or weights)


@pytest.mark.parametrize("engine", ["two_calls", "triton"])
def test_engines_by_name_are_given_one_type(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "triton":
        pytest.importorskip("triton")
    _runs("gtp", "vit, q/k-norm", "autocast to bf16", monkeypatch, engine)


def test_an_older_gpu_has_no_kernel_for_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    _runs("gtp", "vit", "bf16", monkeypatch, capability=7)


def _shape(model: nn.Module) -> tuple[int, int, int]:
    embed: Any = getattr(model, "patch_embed", None)
    size: Any = 32 if embed is None else embed.img_size
    height, width = (size, size) if isinstance(size, int) else size
    return 3, height, width


@pytest.mark.parametrize(("method", "family", "precision"), OFTEN)
def test_runs(method: str, family: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _runs(method, family, precision, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "family", "precision"), [case for case in TRIED if case not in OFTEN]
)
def test_runs_everywhere(
    method: str, family: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _runs(method, family, precision, monkeypatch)
