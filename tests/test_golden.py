"""The authors' programs: float64 logits of tiny models, to be met to 1e-6."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr

FOLDER = Path(__file__).parent / "golden"
CASES = json.loads((FOLDER / "cases.json").read_text())


@cache
def _arrays() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "models.npz") as archive:
        return dict(archive)


@cache
def _model(seed: int, cls: bool) -> VisionTransformer:
    model = VisionTransformer(
        **CASES["config"],
        class_token=cls,
        global_pool="token" if cls else "avg",
        fc_norm=False,
        norm_layer=lambda *a, **k: torch.nn.LayerNorm(*a, **{**k, "eps": CASES["norm_eps"]}),
    )
    prefix = f"model{seed}/"
    weights = {k.removeprefix(prefix): v for k, v in _arrays().items() if k.startswith(prefix)}
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    return model.double().eval()


def _images() -> torch.Tensor:
    return torch.from_numpy(_arrays()["images"]).double()


def _check(model: VisionTransformer, strategy: tr.Strategy, case: dict[str, Any]) -> None:
    with torch.no_grad():
        logits = tr.wrap(model, strategy)(_images())
    np.testing.assert_allclose(logits.numpy(), np.array(case["logits"]), atol=1e-6, rtol=1e-6)


def _name(case: dict[str, Any]) -> str:
    return "-".join(f"{k}={v}" for k, v in case.items() if "logits" not in k)


@pytest.mark.parametrize("case", CASES["gtp"], ids=_name)
def test_gtp(case: dict[str, Any]) -> None:
    model = _model(case["seed"], case["cls"])
    with torch.no_grad():
        dense = model(_images())
    np.testing.assert_allclose(dense.numpy(), np.array(case["dense_logits"]), atol=1e-9)
    about = {"cls", "seed", "logits", "dense_logits"}
    arguments = {k: v for k, v in case.items() if k not in about}
    _check(model, tr.strategy("gtp", reference=True, **arguments), case)


@pytest.mark.parametrize("case", [c for c in CASES["others"] if c["method"] == "tome"], ids=_name)
def test_tome(case: dict[str, Any]) -> None:
    strategy = tr.strategy(
        "tome", r=case["r"], proportional_attention=case["proportional_attention"], reference=True
    )
    model = _model(case["seed"], True)
    _check(model, strategy, case)
    _, trace = tr.wrap(model, strategy).run_with_trace(_images())
    assert trace.features[-1].shape[1] == case["final_tokens"]


@pytest.mark.parametrize(
    "case", [c for c in CASES["others"] if c["method"] == "idlevit"], ids=_name
)
def test_idlevit(case: dict[str, Any]) -> None:
    strategy = tr.strategy(
        "idlevit", layers=case["idle_layers"], keep_ratios=case["keep_ratios"], reference=True
    )
    _check(_model(case["seed"], True), strategy, case)


@pytest.mark.parametrize("case", [c for c in CASES["others"] if c["method"] == "evit"], ids=_name)
def test_evit(case: dict[str, Any]) -> None:
    strategy = tr.strategy(
        "evit", keep_rate=case["keep_rate"], layers=(0, 1, 2, 3), fuse=case["fuse"], reference=True
    )
    _check(_model(case["seed"], True), strategy, case)
