"""Every recipe through every analysis, on models of each kind, or refused with the reason."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import tokenred as tr
from tokenred.analysis import Grid, benchmark, compare, oversmoothing
from tokenred.analysis.token_picture import trace_picture
from tokenred.core.errors import ConfigError
from tokenred.models.lvvit import LVViT

SIZES: dict[str, Any] = {"embed_dim": 24, "depth": 4, "num_heads": 3, "num_classes": 10}
SMALL = SIZES | {"img_size": 32, "patch_size": 8}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: VisionTransformer(**SMALL),
    "no cls": lambda: VisionTransformer(**SMALL, class_token=False, global_pool="avg"),
    "lvvit": lambda: LVViT(img_size=64, **SIZES),
}
RECIPES = tr.list_strategies()
NEED_CLS = [
    name
    for name in RECIPES
    if any(part.traits.needs_cls for part in tr.strategy(name).parts.values())
]
DATA: dict[str, Any] = {"data": "digits", "limit": 2}
FEW: dict[str, Any] = DATA | {"progress": False}
pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


def in_a_grid(model: nn.Module, names: list[str]) -> list[str]:
    found = Grid(model=model, axes={"base": names}, against="dense", **DATA).run(progress=False)
    assert found.failed() == []
    return found.frame["strategy"].tolist()


def in_pictures(model: nn.Module, names: list[str]) -> list[str]:
    side = 64 if isinstance(model, LVViT) else 32
    return [row.label for row in trace_picture(model, torch.randn(3, side, side), names).rows]


def timed(model: nn.Module, names: list[str]) -> list[str]:
    models = {name: tr.wrap(model, name) for name in names}
    found = benchmark(models, dense=model, batch_size=1, pairs=2, warmup=0, progress=False)
    return [timing.name for timing in found]


def compared(model: nn.Module, names: list[str]) -> list[str]:
    return compare(model, strategies=names, timing=False, **FEW).frame["strategy"].tolist()


RUNS: dict[str, Callable[[nn.Module, list[str]], list[str]]] = {
    "oversmoothing": lambda m, s: oversmoothing(m, strategies=s, **FEW).frame["strategy"].tolist(),
    "compare": compared,
    "ablate": in_a_grid,
    "show": in_pictures,
    "bench": timed,
}


def made(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[kind]().eval()


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        pytest.param(run, kind, marks=() if kind == "plain" else pytest.mark.slow)
        for run in RUNS
        for kind in MODELS
    ],
)
def test_it_runs(run: str, kind: str) -> None:
    names = [name for name in RECIPES if kind != "no cls" or name not in NEED_CLS]
    assert set(RUNS[run](made(kind), names)) - {"dense"} == set(names)


@pytest.mark.parametrize("run", RUNS)
def test_the_reason_is_told(run: str) -> None:
    model = made("no cls")
    for name in NEED_CLS:
        with pytest.raises(ConfigError, match="reads the attention of a CLS token"):
            RUNS[run](model, [name])


@pytest.fixture(scope="module")
def cifar10_vit() -> nn.Module:
    return tr.models.load_model("cifar10_vit", pretrained=False)


@pytest.mark.parametrize("name", RECIPES)
def test_a_grid_takes_the_budgets_that_wrap_takes(name: str, cifar10_vit: nn.Module) -> None:
    plan = Grid(
        axes={"base": [name], "budget": [0.8, 0.5]}, model=cifar10_vit, metrics=(), invalid="skip"
    ).plan()
    for cell in plan.cells:
        if cell.error is not None:
            with pytest.raises(type(cell.error), match=re.escape(str(cell.error))):
                tr.wrap(cifar10_vit, cell.label)
        else:
            assert plan.cost(cell) == tr.wrap(cifar10_vit, cell.label).cost()
