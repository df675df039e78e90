"""Facts about machine and weights."""

from __future__ import annotations

import torch
from torch import nn

import tokenred
from tokenred.analysis import describe_machine, weights_digest


def test_machine() -> None:
    facts = describe_machine()
    assert facts["tokenred"] == tokenred.__version__
    assert facts["device"] == "cpu"
    assert facts["processor"]
    assert int(facts["cores"]) >= 1


def test_digest_hangs_on_values_names_and_types(digits: nn.Module) -> None:
    assert weights_digest(digits) == weights_digest(tokenred.models.load_model("digits"))
    layer = nn.Linear(2, 2)
    seen = {weights_digest(layer), weights_digest(nn.Sequential(layer))}
    with torch.no_grad():
        layer.weight[0, 0] += 1e-6 + layer.weight[0, 0].abs()
    seen |= {weights_digest(layer), weights_digest(layer.to(torch.bfloat16))}
    assert len(seen) == 4
    assert len(weights_digest(digits)) == 16
