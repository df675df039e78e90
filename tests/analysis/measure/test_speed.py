"""Timing runs in pairs and says on what; no test looks at how fast anything is."""

import gc
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis import benchmark, peak_memory
from tokenred.analysis.measure.speed import allocation_peak, summarise
from tokenred.core.errors import ConfigError, InputError, PartError, UnknownNameError

QUICK: dict[str, Any] = {"batch_size": 2, "pairs": 2, "warmup": 1, "progress": False}


def test_one_model(digits: nn.Module) -> None:
    fast = tr.wrap(digits, "tome:r=4")
    found = benchmark(fast, **QUICK)
    (timing,) = found
    assert timing.pairs == 2
    assert timing.gmacs == pytest.approx(tr.gmacs(fast))
    assert timing.dense_gmacs == pytest.approx(tr.gmacs(digits))
    assert timing.speedup_low <= timing.speedup <= timing.speedup_high
    assert timing.images_per_second == pytest.approx(2e3 / timing.ms)
    assert found.image_shape == (3, 32, 32)
    assert found.machine["torch"] == torch.__version__
    for word in ("reduced", "2 pairs", "thread", str(found.machine["processor"])):
        assert word in str(found)
    alone = replace(found, machine=found.machine | {"cores": 1, "threads": 1})
    assert ", 1 core, 1 thread, torch" in alone.footnotes()[0]


def test_a_busy_machine_is_told(digits: nn.Module) -> None:
    found = benchmark(tr.wrap(digits, "tome:r=4"), **QUICK, threads=1)
    assert 0 <= found.others <= (os.cpu_count() or 1)
    quiet = replace(found, others=(os.cpu_count() or 1) - 1.0)
    assert len(quiet.footnotes()) == 1
    busy = replace(quiet, others=quiet.others + 0.3)
    assert f"Other programs used {busy.others:.1f} cores meanwhile" in busy.footnotes()[1]
    assert len(replace(busy, machine=busy.machine | {"device": "cuda"}).footnotes()) == 1


def test_each_candidate_runs_right_after_dense(digits: nn.Module) -> None:
    order: list[str] = []
    fast = {name: tr.wrap(digits, name) for name in ("topk", "evit")}
    hooks = [digits.register_forward_pre_hook(lambda *_: order.append("dense"))]
    for name, model in fast.items():
        hooks.append(model.register_forward_pre_hook(lambda *_, name=name: order.append(name)))
    try:
        benchmark(fast, **QUICK)
    finally:
        for hook in hooks:
            hook.remove()
    # The last of each three is the hook again: a reduced model runs those of its base.
    assert order == ["dense", "topk", "dense", "dense", "evit", "dense"] * 3


def test_strategies_with_a_dense_model_until_a_deadline(digits: nn.Module) -> None:
    models = {"noise": digits, "evit": "evit", "mine": tr.strategy("topk", keep_rate=0.5)}
    found = benchmark(models, dense=digits, **QUICK | {"pairs": 50, "max_seconds": 0})
    assert [(timing.name, timing.pairs) for timing in found] == [(name, 3) for name in models]
    assert found["noise"].allowed == 1
    assert found["mine"].gmacs < found["evit"].gmacs < found[0].gmacs
    assert len(found) == len(found.frame()) == 3
    assert {"speedup", "realised_low", "torch", "processor", "seed"} <= set(found.frame())
    with pytest.raises(UnknownNameError, match="Known"):
        found["gtp"]


def test_nothing_is_left_changed(digits: nn.Module) -> None:
    threads = torch.get_num_threads()
    digits.train()
    try:
        benchmark([tr.wrap(digits, "random")], threads=1, amp=torch.bfloat16, **QUICK)
        assert digits.training
    finally:
        digits.eval()
    assert torch.get_num_threads() == threads
    assert gc.isenabled()
    assert not torch.is_inference_mode_enabled()


def test_names_and_compiled_models(digits: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def pretend(model: nn.Module, **options: Any) -> nn.Module:
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", pretend)
    same = tr.wrap(digits, "random")
    models = ["evit", tr.strategy("random"), same, same]
    found = benchmark(models, dense=digits, compile=True, **QUICK)
    assert [timing.name for timing in found] == ["evit", "1", "2", "3"]
    # Each model once, the dense one first.
    assert len(compiled) == 4
    assert (compiled[0], compiled[-1]) == (digits, same)
    assert ", compiled" in str(found)
    assert found.frame()["compile"].tolist() == ["true"] * 4


def test_refused(digits: nn.Module) -> None:
    fast = tr.wrap(digits, "topk")
    for wrong in ({"pairs": 1}, {"threads": 0}, {"compile": "quickly"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            benchmark(fast, **wrong)
    for shape in ((32, 32), (3, 33, 32)):
        with pytest.raises(InputError):
            benchmark(fast, shape, **QUICK)
    for given, said in ((digits, "no dense model"), ("gtp", "Pass dense="), ({}, "at least one")):
        with pytest.raises(ConfigError, match=said):
            benchmark(given)
    with pytest.raises(PartError, match="got 3"):
        benchmark({"x": 3})  # type: ignore[dict-item]


def test_figures_by_hand() -> None:
    seconds = np.array([[0.4, 0.1], [0.4, 0.2], [0.4, 0.4], [0.8, 0.2], [0.8, 0.4]])
    found = summarise("x", seconds, 8, 2.0, 4.0, overhead_gmacs=0.5)
    assert (found.ms_q1, found.ms, found.ms_q3) == pytest.approx((200, 200, 400))
    assert (found.dense_ms, found.dense_ms_q1, found.dense_ms_q3) == pytest.approx((400, 400, 800))
    # The ratios are 4, 2, 1, 4, 2.
    assert (found.speedup, found.speedup_q1, found.speedup_q3) == pytest.approx((2, 2, 4))
    assert found.images_per_second == pytest.approx(40)
    assert (found.allowed, found.realised, found.overhead_gmacs) == pytest.approx((2, 1, 0.5))
    same = summarise("x", np.tile([0.3, 0.2], (9, 1)), 8, 2.0, 4.0)
    assert same.speedup == same.speedup_low == same.speedup_high == pytest.approx(1.5)
    assert same.realised_low == same.realised_high == pytest.approx(0.75)


def test_the_interval_is_around_the_median_ratio_and_reproducible() -> None:
    rng = np.random.default_rng(3)
    seconds = np.stack((rng.lognormal(0.4, 0.1, 15), rng.lognormal(0, 0.1, 15)), axis=1)
    found = summarise("x", seconds, 8, 2.0, 4.0)
    assert found.speedup_low < found.speedup < found.speedup_high < found.speedup_low + 0.3
    assert found == summarise("x", seconds, 8, 2.0, 4.0)


# Peak memory.


def test_to_the_byte() -> None:
    def program() -> torch.Tensor:
        a = torch.empty(1000)  # 4000 held
        b = torch.empty(250, dtype=torch.float64)  # 6000
        del a  # 2000
        c = torch.empty(500)  # 4000
        b.add_(b)  # nothing
        del b  # 2000
        d = torch.empty(1001)  # 6004: the peak
        del d
        return c

    assert allocation_peak(program) == 6004
    # What was there before does not count.
    before = torch.zeros(10_000)
    assert allocation_peak(lambda: before.add_(before)) == 0
    with pytest.raises(ConfigError, match="cpu or cuda"):
        allocation_peak(lambda: None, "meta")


def test_a_forward(digits: nn.Module) -> None:
    one, four = (peak_memory(digits, batch_size=b) for b in (1, 4))
    # More than the widest tensor: the MLP's hidden layer.
    assert 0 < 4 * 65 * digits.blocks[0].mlp.fc1.out_features * 4 < four
    assert one < four
    early = tr.strategy("random", keep_rate=0.2, layers=(0,)).replace(where="before_block")
    assert peak_memory(tr.wrap(digits, early), batch_size=4) < four
