from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import timm
import torch

import tokenred as tr
from tokenred.attention import PLAIN, FusedEngine
from tokenred.reduced.recorder import PHASES, no_span


def _model() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2
    ).eval()


@pytest.mark.parametrize("strategy", ["gtp", "tome", "evit", "idlevit", "random"])
def test_every_phase_is_named_once_and_the_logits_stay(strategy: str) -> None:
    reduced = tr.wrap(_model(), strategy)
    images = torch.randn(2, 3, 32, 32)
    seen: list[str] = []
    open_spans = 0

    @contextmanager
    def span(phase: str) -> Iterator[None]:
        nonlocal open_spans
        assert open_spans == 0, "phases do not nest"
        open_spans += 1
        seen.append(phase)
        yield
        open_spans -= 1

    with torch.inference_mode():
        logits = reduced.run_with_spans(images, span)
        torch.testing.assert_close(logits, reduced(images), rtol=0, atol=0)
    assert set(seen) <= set(PHASES)
    assert seen[0] == "embed"
    assert seen[-1] == "head"
    assert seen.count("mlp") + seen.count("block") == 3
    assert seen.count("graph") == int(strategy == "gtp")
    assert seen.count("select") == seen.count("fuse") > 0


def test_engines_can_be_replaced_for_one_run() -> None:
    used = []

    class Spy(FusedEngine):
        def __call__(self, heads, request, state):  # type: ignore[no-untyped-def]
            used.append(request)
            return PLAIN(heads, request, state)

        def supports(self, heads, request) -> bool:  # type: ignore[no-untyped-def]
            return True

    reduced = tr.wrap(_model(), tr.strategy("gtp", P=2))
    images = torch.randn(1, 3, 32, 32)
    logits = reduced.run_with_spans(images, no_span, engines=(Spy(),))
    assert len(used) == 3
    torch.testing.assert_close(logits, reduced(images), rtol=1e-5, atol=1e-5)
    assert len(used) == 3


def test_a_trace_says_how_far_the_share_kept_is_from_theta() -> None:
    images = torch.randn(2, 3, 32, 32)
    for threshold, bound in (("exact", 1 / 15**2), ("fast", 0.01 + 1 / 15**2)):
        strategy = tr.strategy("gtp", P=1, theta=0.6, threshold=threshold)
        with torch.inference_mode():
            _, trace = tr.wrap(_model(), strategy).run_with_trace(images)
        assert [error.shape for error in trace.theta_error] == [(2, 2)] * 3
        assert all(error.abs().max() <= bound for error in trace.theta_error)
        assert len(trace.cut(1).theta_error) == 2
    assert tr.wrap(_model(), "gtp").run_with_trace(images)[1].theta_error == []
