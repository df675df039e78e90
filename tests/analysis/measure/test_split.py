"""The phases of a forward are all there, and together the forward; no test looks at how fast."""

from typing import Any

import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis import time_split
from tokenred.analysis.measure.split import LINES, shares_of
from tokenred.attention import FusedEngine
from tokenred.core.errors import ConfigError

QUICK: dict[str, Any] = {"batch_size": 1, "repeats": 2, "warmup": 0, "progress": False}
OPENED = {"attention", "selection", "fuse", "projections", "mlp", "ends"}


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("gtp:P=4", OPENED | {"statistics", "graph"}),
        ("gtp:P=4,theta=0.6", OPENED | {"statistics", "graph"}),
        # ToMe looks at keys only: no statistic of the map.
        ("tome:r=4", OPENED),
        ("topk:layers=[3]", OPENED | {"statistics", "untouched"}),
        (None, {"untouched", "ends"}),
    ],
)
def test_lines(digits: nn.Module, strategy: str | None, expected: set[str]) -> None:
    model = digits if strategy is None else tr.wrap(digits, strategy)
    found = time_split(model, **QUICK)
    shares = {name: found[f"split_{name}"] for name in LINES}
    assert {name for name, share in shares.items() if share} - {"rest"} == expected
    assert sum(shares.values()) == pytest.approx(1)


def test_looking_changes_neither_result_nor_model(digits: nn.Module) -> None:
    fast = tr.wrap(digits, "gtp:P=4,theta=0.6")
    images = torch.randn(2, 3, 32, 32)
    engines, threads = fast.engines, torch.get_num_threads()
    with torch.no_grad():
        before = fast(images)
    fast.train()
    try:
        time_split(fast, threads=1, amp=torch.bfloat16, **QUICK)
        assert fast.training
    finally:
        fast.eval()
    with torch.no_grad():
        assert torch.equal(fast(images), before)
    assert fast.engines is engines
    assert torch.get_num_threads() == threads


def test_the_models_own_engines_run(digits: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tr.wrap(digits, tr.strategy("gtp", P=4), engine="plain")
    runs = []
    real = FusedEngine.__call__

    def spy(self, qkv, spec, state):  # type: ignore[no-untyped-def]
        runs.append(spec)
        return real(self, qkv, spec, state)

    monkeypatch.setattr(FusedEngine, "__call__", spy)
    time_split(plain, batch_size=1, repeats=1, warmup=0, progress=False)
    # Fused attention is the bare one only, and is asked for nothing but the bias.
    assert len(runs) == len(digits.blocks)
    assert all(not spec.requires and spec.theta == 1 for spec in runs)
    assert [spec.key_bias is None for spec in runs] == [True] + [False] * (len(runs) - 1)


def test_refused(digits: nn.Module) -> None:
    with pytest.raises(ConfigError, match="repeats"):
        time_split(digits, repeats=0)
    with pytest.raises(tr.errors.BackboneError):
        time_split(nn.Linear(2, 2))


def test_shares() -> None:
    times = {"mlp": (0.5, 0.7, 0.6), "graph": (0.1, 0.1, 0.1), "fuse": (0.1, 0.3, 0.2),
             "attention": (0.1, 0.1, 0.1)}  # fmt: skip
    looked = [dict.fromkeys(LINES, 0.0) | {n: own[i] for n, own in times.items()} for i in range(3)]
    found = shares_of(looked, [0.8, 0.9, 1.0])
    assert found["split_mlp"] == pytest.approx(0.6)
    assert found["split_choosing"] == pytest.approx(0.3)
    assert found["split_cost_of_looking"] == pytest.approx(1 / 9)
    assert sum(found[f"split_{name}"] for name in LINES) == pytest.approx(1)
