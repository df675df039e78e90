"""Every recipe through compare, ablate, show and bench: it runs, or says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from tests.cli.conftest import Run
from tokenred.core.registry import KINDS

SHAPE = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 24, "depth": 4,
         "num_heads": 3, "mlp_ratio": 2.0}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "plain": SHAPE,
    "without_cls": SHAPE | {"class_token": False, "global_pool": "avg"},
}
NEED_CLS = ("ats", "diffrate", "evit", "evo-vit", "idlevit", "tomecis")
RECIPES = tuple(KINDS["strategy"].names())
pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


@pytest.fixture(autouse=True)
def _models(run: Run) -> None:
    """Small models, as files in the working folder."""
    for name, config in MODELS.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            state = VisionTransformer(**config).state_dict()
        preprocessing = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
        metadata = {"config": json.dumps(config), "preprocessing": json.dumps(preprocessing)}
        save_file(state, f"{name}.safetensors", metadata=metadata)


def _strategies(names: tuple[str, ...] | list[str]) -> list[str]:
    return [word for name in names for word in ("-s", name)]


@pytest.mark.parametrize("model", MODELS)
def test_compare(run: Run, model: str) -> None:
    names = [name for name in RECIPES if model == "plain" or name not in NEED_CLS]
    result = run("compare", "--model", f"{model}.safetensors", "--data", "digits", "--limit", 4,
                 "--no-timing", "--out", "out", *_strategies(names))  # fmt: skip
    assert result.exit_code == 0, result.output
    frame = pd.read_csv("out/comparison.csv").set_index("strategy")
    assert frame.index.tolist() == ["dense", *names]
    # MSTM's second embedding may cost more than is gone from a model of few tokens.
    assert (frame["gmacs"] <= 1.1 * frame.loc["dense", "gmacs"]).all()


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["ablate", "--data", "digits", "-a", f"base={','.join(RECIPES)}", "--limit", "4",
          "-o", "out.csv"], "out.csv"),
        pytest.param(
            ["show", "--data", "digits", *_strategies(RECIPES), "--layers", "2", "-o", "out.png"],
            "out.png", marks=pytest.mark.slow),
        (["bench", *_strategies(RECIPES), "-n", "1", "--pairs", "2", "-o", "out"],
         "out/results.csv"),
    ],
    ids=["ablate", "show", "bench"],
)  # fmt: skip
def test_all_at_once(run: Run, words: list[str], result: str) -> None:
    done = run(*words, "--model", "plain.safetensors")
    assert done.exit_code == 0, done.output
    if result.endswith(".png"):
        assert [name for name in RECIPES if f"{name}: " not in done.stdout] == []
        assert Path(result).stat().st_size > 1000
    else:
        frame = pd.read_csv(result)
        assert len(frame) == len(RECIPES)
        assert frame["top1" if words[0] == "ablate" else "speedup"].notna().all()


@pytest.mark.parametrize(
    "words",
    [
        *(f"compare --data digits --limit 6 -s {name}" for name in NEED_CLS),
        "ablate --data digits --limit 6 --base evit",
        "show --data digits -s evit",
        "bench -n 2 --pairs 3 -s evit",
    ],
)
def test_refused_without_cls(run: Run, words: str) -> None:
    assert "CLS token" in run(*words.split(), "--model", "without_cls.safetensors").refusal
    assert not list(Path().rglob("*.png")) + list(Path().rglob("*.csv"))
