"""The methods since 2022: float64 logits of programs, or of their specification where none exists.

``about`` in ``golden/a_cases.json`` and ``b_cases.json`` says what the cases hold.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import tokenred as tr

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")

FOLDER = Path(__file__).parent / "golden"
FILES = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in ("a_cases", "b_cases")}
# What a case tells of itself and of its results; everything else is an argument of the recipe.
ABOUT = {
    "method", "seed", "program", "source", "kind", "logits", "tokens_after_block", "clusters",
    "groups", "fate", "assignment", "centres", "medoids", "final_sizes_sorted",
    "shared_destinations",
}  # fmt: skip
CASES = [
    pytest.param(file, case, id=f"{case['method']}-{i}")
    for file, held in FILES.items()
    for i, case in enumerate(held["cases"])
]


@cache
def _arrays(file: str) -> dict[str, Tensor]:
    with np.load(FOLDER / f"{file}.npz") as archive:
        return {name: torch.from_numpy(array).double() for name, array in archive.items()}


@cache
def _model(seed: int) -> VisionTransformer:
    about, arrays = FILES["a_cases"], _arrays("models" if seed < 10 else "a_models")
    model = VisionTransformer(
        **about["config" if seed < 10 else "config_deep"],
        class_token=seed != 5,
        global_pool="avg" if seed == 5 else "token",
        fc_norm=False,
        norm_layer=lambda *a, **k: torch.nn.LayerNorm(*a, **{**k, "eps": about["norm_eps"]}),
    )
    start = f"model{seed}/"
    own = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
    model.double().load_state_dict(own)
    return model.eval()


def _images(seed: int) -> Tensor:
    return _arrays("models" if seed < 10 else "a_models")["images"]


def _load(reduced: tr.ReducedViT, start: str) -> None:
    """The learned parts, of which the file has enough rows for any number of clusters."""
    learned = _arrays("b_models")
    for name, parameter in reduced.named_parameters():
        if name.startswith("parts."):
            _, _, reduction, rest = name.split(".", 3)
            array = learned[f"{start}/{reduction}/{rest}"]
            parameter.data.copy_(array[: len(parameter)] if array.dim() else array)


@pytest.mark.parametrize(
    ("file", "case"), [case for case in CASES if case.values[1].get("kind") != "calibration"]
)
def test_logits(file: str, case: dict[str, Any]) -> None:
    arguments = {k: v for k, v in case.items() if k not in ABOUT}
    strategy = tr.strategy(case["method"], **arguments, reference=True)
    reduced = tr.wrap(_model(case["seed"]), strategy)
    _load(reduced, f"{case['method']}{case['seed']}")
    with torch.no_grad():
        logits, trace = reduced.run_with_trace(_images(case["seed"]))
    np.testing.assert_allclose(logits.numpy(), np.array(case["logits"]), atol=1e-9, rtol=1e-9)
    prefix, counts = reduced.info.num_prefix, np.array(case["tokens_after_block"]).T
    alive = np.stack([alive.numpy() for alive in trace.alive_per_layer]) + prefix
    assert (alive == (counts if counts.ndim == 2 else counts[:, None])).all()


@pytest.mark.parametrize(
    ("file", "case"), [case for case in CASES if case.values[1].get("kind") == "calibration"]
)
def test_calibration(file: str, case: dict[str, Any]) -> None:
    model, images = _model(case["seed"]), _images(case["seed"])
    if case["method"] == "dtome":
        strategy = tr.strategy("dtome", reference=True)
        found: Any = tr.calibrate(model, strategy, images, r=case["r"]).selector
        pairs = [(found.thresholds, case["thresholds"])]
    else:
        strategy = tr.strategy("adamerge", r_max=case["r_max"], affinity=case["affinity"])
        found = tr.calibrate(model, strategy, images).selector
        pairs = [(found.mean, case["mean"]), (found.std, case["std"])]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
