"""Every recipe through compare, ablate, show and bench: it runs, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from timm.models import _registry
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tokenred.models.lvvit import LVViT
from tokenred.strategies.strategy import recipes

SHAPE = {"num_classes": 10, "embed_dim": 48, "depth": 4, "num_heads": 3, "mlp_ratio": 2.0}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "tiny_deit": lambda: VisionTransformer(img_size=32, patch_size=8, **SHAPE),
    "tiny_lvvit": lambda: LVViT(img_size=64, **SHAPE),
    "tiny_without_cls": lambda: VisionTransformer(
        img_size=32, patch_size=8, class_token=False, global_pool="avg", **SHAPE
    ),
}
NEED_CLS = ("ats", "evit", "evo-vit", "idlevit")
RECIPES = tuple(recipes.names())
pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Small models under names that timm knows, with the same weights each time."""

    def entry(name: str) -> Callable[..., nn.Module]:
        def create(pretrained: bool = False, **_: Any) -> nn.Module:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model: Any = MODELS[name]()
            side = model.patch_embed.img_size[0]
            model.pretrained_cfg = {"architecture": name, "input_size": (3, side, side),
                                    "mean": (0.5,) * 3, "std": (0.5,) * 3}  # fmt: skip
            return model

        return create

    for name in MODELS:
        monkeypatch.setitem(_registry._model_entrypoints, name, entry(name))
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_recipes_are_all_here() -> None:
    assert set(recipes.names()) == {
        "ats", "dynamicvit", "evit", "evo-vit", "gtp", "idlevit", "mstm", "random", "tome",
        "topk", "tri-level", "uniform",
    }  # fmt: skip


def methods_of(model: str) -> list[str]:
    """Those that run on a model."""
    return [name for name in RECIPES if model != "tiny_without_cls" or name not in NEED_CLS]


def asked(names: list[str]) -> list[str]:
    return [word for name in names for word in ("-s", name)]


@pytest.mark.parametrize("model", MODELS)
def test_compare(run: Any, model: str) -> None:
    names = methods_of(model)
    result = run("compare", "--model", model, "--data", "digits", *asked(names), "--limit", 6,
                 "--no-timing", "--out", "out")  # fmt: skip
    assert result.exit_code == 0, result.output
    frame = pd.read_csv("out/comparison.csv").set_index("strategy")
    assert frame.index.tolist() == ["dense", *names]
    # MSTM's second embedding may cost more than is gone from a model of few tokens.
    assert (frame["gmacs"] <= 1.1 * frame.loc["dense", "gmacs"]).all()


@pytest.mark.parametrize("model", MODELS)
def test_ablate(run: Any, model: str) -> None:
    for name in methods_of(model):
        result = run("ablate", "--model", model, "--data", "digits", "--base", name, "--limit", 4,
                     "-o", f"{name}.csv")  # fmt: skip
        assert result.exit_code == 0, (name, result.output)
        assert pd.read_csv(f"{name}.csv")["top1"].notna().all(), name


@pytest.mark.parametrize("model", MODELS)
def test_show(run: Any, model: str) -> None:
    names = methods_of(model)
    result = run("show", "--model", model, "--data", "digits", *asked(names), "-o", "a.png")
    assert result.exit_code == 0, result.output
    assert [name for name in names if f"{name}: " not in result.stdout] == []
    assert Path("a.png").stat().st_size > 1000


@pytest.mark.parametrize("model", MODELS)
def test_bench(run: Any, model: str) -> None:
    names = methods_of(model)
    result = run("bench", "--model", model, *asked(names), "-n", 2, "--pairs", 3, "-o", "out")
    assert result.exit_code == 0, result.output
    assert set(pd.read_csv("out/results.csv")["strategy"]) >= set(names)


@pytest.mark.parametrize("name", NEED_CLS)
@pytest.mark.parametrize(
    "command",
    [
        ("compare", "--data", "digits", "-s", "NAME", "--limit", 6),
        ("ablate", "--data", "digits", "--base", "NAME", "--limit", 6),
        ("show", "--data", "digits", "-s", "NAME"),
        ("bench", "-s", "NAME", "-n", 2, "--pairs", 3),
    ],
    ids=lambda command: command[0],
)
def test_refused_without_cls(run: Any, command: tuple[Any, ...], name: str) -> None:
    given = [name if word == "NAME" else word for word in command]
    result = run(*given, "--model", "tiny_without_cls")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("tokenred: ")
    assert "CLS token" in result.stderr
    assert not list(Path().rglob("*.png")) + list(Path().rglob("*.csv"))
