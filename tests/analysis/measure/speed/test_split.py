"""The phases of a forward are all there, and together the forward; no test looks at how fast."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis import time_split
from tokenred.analysis.measure.speed.split import _LINE_OF, _look
from tokenred.analysis.measure.speed.splits import LINES
from tokenred.attention import FusedEngine
from tokenred.core.errors import ConfigError, InputError
from tokenred.reduced.recorder import PHASES

QUICK = {"batch_size": 2, "repeats": 2, "warmup": 0, "progress": False}
OPENED = {"attention", "selection", "fuse", "projections", "mlp", "ends"}


def test_every_phase_of_the_loop_has_a_line() -> None:
    assert set(_LINE_OF) | {"attention"} == set(PHASES)
    assert set(_LINE_OF.values()) < set(LINES)


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


class Steps:
    """A clock that goes on by a second at each look."""

    def __init__(self) -> None:
        self.now = 0

    def mark(self) -> int:
        self.now += 1
        return self.now

    def settle(self) -> None:
        pass

    def seconds(self, begin: int, end: int) -> float:
        return float(end - begin)


def test_the_bare_attention_is_taken_out_of_the_sum(digits: nn.Module) -> None:
    fast = tr.wrap(digits, tr.strategy("gtp", P=4))
    depth = len(digits.blocks)
    clock = Steps()
    with torch.inference_mode():
        lines = _look(fast, torch.zeros(1, 3, 32, 32), clock)  # type: ignore[arg-type]
    # A span without others inside lasts a second; the attention of a block holds two of them.
    assert lines["attention"] == depth
    assert lines["statistics"] == 0
    assert lines["projections"] == 2 * depth
    assert lines["mlp"] == lines["selection"] == lines["fuse"] == depth
    assert (lines["graph"], lines["ends"], lines["untouched"]) == (1, 2, 0)
    whole = clock.now - 1
    assert sum(lines.values()) == whole - depth
    assert lines["rest"] > 0


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
