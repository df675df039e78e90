"""The phases of a forward are all there, and together the forward; no test looks at how fast."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis import TimeSplit, time_split
from tokenred.analysis.measure.split import LINES, summarise_split
from tokenred.attention import FusedEngine
from tokenred.core.errors import ConfigError, InputError, UnknownNameError

QUICK = {"batch_size": 2, "repeats": 2, "warmup": 0, "progress": False}


OPENED = {"attention", "selection", "fuse", "projections", "mlp", "ends"}


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (tr.strategy("gtp", P=4), OPENED | {"statistics", "graph"}),
        (tr.strategy("gtp", P=4, theta=0.6), OPENED | {"statistics", "graph"}),
        # ToMe looks at keys only: no statistic of the map.
        (tr.strategy("tome", r=4), OPENED),
        (tr.strategy("topk", layers=(3,)), OPENED | {"statistics", "untouched"}),
        (tr.strategy("gtp", P=0), {"untouched", "ends"}),
    ],
    ids=["gtp", "theta", "tome", "topk", "idle"],
)
def test_lines(digits: nn.Module, strategy: tr.Strategy, expected: set[str]) -> None:
    found = time_split(tr.wrap(digits, strategy), **QUICK)
    assert [phase.name for phase in found.phases] == list(LINES)
    assert {phase.name for phase in found.phases if phase.ms} - {"rest"} == expected
    assert sum(phase.ms for phase in found.phases) == pytest.approx(found.ms)
    assert (found.repeats, found.batch_size, found.tokens) == (2, 2, 65)
    assert found.image_shape == (3, 32, 32)
    assert found.precision == "float32"


def test_a_dense_model_is_untouched(digits: nn.Module) -> None:
    found = time_split(digits, **QUICK)
    assert found["untouched"].ms > 0
    assert found.choosing.ms == found["statistics"].ms == 0


def test_looking_changes_neither_result_nor_model(digits: nn.Module) -> None:
    fast = tr.wrap(digits, tr.strategy("gtp", P=4, theta=0.6))
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

    def spy(self, heads, request, state):  # type: ignore[no-untyped-def]
        runs.append(request)
        return real(self, heads, request, state)

    monkeypatch.setattr(FusedEngine, "__call__", spy)
    time_split(plain, batch_size=1, repeats=1, warmup=0, progress=False)
    # Fused attention is the bare one only, and is asked for nothing but the bias.
    assert len(runs) == len(digits.blocks)
    assert all(not request.requires and request.theta == 1 for request in runs)
    assert [request.key_bias is None for request in runs] == [True] + [False] * (len(runs) - 1)


def test_refused(digits: nn.Module) -> None:
    with pytest.raises(ConfigError, match="repeats"):
        time_split(digits, repeats=0)
    with pytest.raises(ConfigError, match="batch_size"):
        time_split(digits, batch_size=0)
    with pytest.raises(InputError):
        time_split(digits, (3, 33, 32), **QUICK)
    with pytest.raises(tr.errors.BackboneError):
        time_split(nn.Linear(2, 2))


ABOUT = {
    "batch_size": 4, "image_shape": (3, 8, 8), "tokens": 5, "precision": "float32", "seed": 0,
    "machine": {"processor": "P", "cores": 2, "threads": 1, "torch": "2", "device": "cpu"},
}  # fmt: skip


@pytest.fixture
def split() -> TimeSplit:
    seconds = {name: np.zeros(3) for name in LINES}
    seconds["mlp"] = np.array([0.5, 0.7, 0.6])
    seconds["graph"] = np.array([0.1, 0.1, 0.1])
    seconds["fuse"] = np.array([0.1, 0.3, 0.2])
    seconds["attention"] = np.array([0.1, 0.1, 0.1])
    return summarise_split(seconds, np.array([0.8, 0.9, 1.0]), **ABOUT)


def test_figures(split: TimeSplit) -> None:
    assert split.ms == pytest.approx(1000)
    assert split["mlp"].ms == pytest.approx(600)
    assert (split["mlp"].ms_q1, split["mlp"].ms_q3) == pytest.approx((550, 650))
    assert split["mlp"].share == pytest.approx(0.6)
    assert split.choosing.ms == pytest.approx(300)
    assert split.choosing.share == pytest.approx(0.3)
    assert split.plain_ms == pytest.approx(900)
    assert split.cost_of_looking == pytest.approx(1 / 9)
    assert sum(split.shares().values()) - split.shares()["choosing"] == pytest.approx(1)
    with pytest.raises(UnknownNameError, match="Did you mean 'selection'"):
        split["select"]


def test_printed(split: TimeSplit) -> None:
    text = str(split)
    for words in ("statistics and θ", "select, graph, fuse", "30.0%", "+11.1%", "5 tokens", "3 of"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 100
    assert split.frame()["name"].tolist() == list(LINES)
