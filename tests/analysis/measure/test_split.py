"""The phases of a forward are all there, and together the forward; no test looks at how fast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis import TimeSplit, time_split
from tokenred.analysis.measure.split import LINES, summarise_split
from tokenred.attention import FusedEngine
from tokenred.core.errors import ConfigError, InputError, UnknownNameError

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
    assert [phase.name for phase in found.phases] == list(LINES)
    assert {phase.name for phase in found.phases if phase.ms} - {"rest"} == expected
    assert sum(phase.ms for phase in found.phases) == pytest.approx(found.ms)
    assert (found.repeats, found.batch_size, found.tokens) == (2, 1, 65)
    assert (found.image_shape, found.precision) == ((3, 32, 32), "float32")


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
    for wrong in ({"repeats": 0}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            time_split(digits, **wrong)
    with pytest.raises(InputError):
        time_split(digits, (3, 33, 32), **QUICK)
    with pytest.raises(tr.errors.BackboneError):
        time_split(nn.Linear(2, 2))


ABOUT = {
    "batch_size": 4, "image_shape": (3, 8, 8), "tokens": 5, "precision": "float32", "seed": 0,
    "machine": {"processor": "P", "cores": 2, "threads": 1, "torch": "2", "device": "cpu"},
}  # fmt: skip


def test_figures_and_what_is_printed() -> None:
    seconds = {name: np.zeros(3) for name in LINES}
    seconds["mlp"] = np.array([0.5, 0.7, 0.6])
    seconds["graph"] = np.array([0.1, 0.1, 0.1])
    seconds["fuse"] = np.array([0.1, 0.3, 0.2])
    seconds["attention"] = np.array([0.1, 0.1, 0.1])
    split: TimeSplit = summarise_split(seconds, np.array([0.8, 0.9, 1.0]), **ABOUT)
    mlp = split["mlp"]
    assert (split.ms, split.plain_ms, split.choosing.ms) == pytest.approx((1000, 900, 300))
    assert (mlp.ms, mlp.ms_q1, mlp.ms_q3, mlp.share) == pytest.approx((600, 550, 650, 0.6))
    assert split.cost_of_looking == pytest.approx(1 / 9)
    assert sum(split.shares().values()) - split.shares()["choosing"] == pytest.approx(1)
    with pytest.raises(UnknownNameError, match="Did you mean 'selection'"):
        split["select"]
    text = str(split)
    for words in ("statistics and θ", "select, graph, fuse", "30.0%", "+11.1%", "5 tokens", "3 of"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 100
    assert split.frame()["name"].tolist() == list(LINES)
