"""What is chosen under mixed precision is what fp32 chooses from the same inputs."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import tokenred as tr
from tests.strategies.recipes.checks import images, model
from tokenred.attention import QKV, PlainEngine, attend
from tokenred.core.state import Selection, TokenState
from tokenred.reduced import loop
from tokenred.strategies.transport import Transport

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
SMALL = {"gtp": {"P": 2, "M": 3}, "tome": {"r": 3}}
FORMS = (pytest.param("cls", marks=pytest.mark.slow), "registers")  # with a norm of q and k


@contextmanager
def _autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield


@contextmanager
def _rounded(setting: str = "medium") -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _fp32() -> Iterator[None]:
    with torch.autocast("cpu", enabled=False), _rounded("highest"):
        yield


def _numbers(found: object) -> list[Tensor]:
    """The choices, and the weights with which tokens travel."""
    if isinstance(found, Selection | Transport):
        found = [getattr(found, field.name) for field in dataclasses.fields(found)]
    elif isinstance(found, tuple) and isinstance(found[0], TokenState):
        # A router: where the tokens are, and what it remembers. Their features are not a choice.
        found = [found[0].index, *(v for v in found[1].values() if not v.is_floating_point())]
    elif isinstance(found, TokenState):
        found = list(found.memory.values())
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


class _Spied:
    """A part, of which every call is answered again in fp32 from the same inputs."""

    def __init__(self, part: Any, calls: list[str]) -> None:
        self.part, self.calls = part, calls

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.part, name)
        watched = {"split", "observe", "transport"}
        return self._twice(value, name) if name in watched else value

    def __call__(self, *given: Any) -> Any:
        if getattr(self.part, "tells_transport", False):
            return self.transport(*given).apply(given[0])
        return self._twice(self.part, "call")(*given)

    def _twice(self, run: Callable[..., Any], name: str) -> Callable[..., Any]:
        def both(*given: Any) -> Any:
            found = run(*given)
            with _fp32():
                expected = run(*given)
            for one, other in zip(_numbers(found), _numbers(expected), strict=True):
                if one.is_floating_point():
                    assert one.dtype in (torch.float32, torch.float64)
                    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
                else:
                    assert torch.equal(one, other)
            self.calls.append(name)
            return found

        return both


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("setting", [_autocast, _rounded])
@pytest.mark.parametrize("name", tr.list_strategies())
def test_parts_choose_as_in_fp32(
    name: str, setting: Any, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    reduced = tr.wrap(model(form).float(), tr.strategy(name, **SMALL.get(name, {})))
    for p in reduced.parts.parameters() if hasattr(reduced, "parts") else ():
        nn.init.normal_(p, std=0.2)
    calls: list[str] = []
    setup = reduced._setup
    parts = {key: _Spied(part, calls) for key, part in setup.parts.items() if key != "embedding"}
    parts = {**setup.parts, **parts}
    reduced._setup = dataclasses.replace(setup, parts=parts)  # type: ignore[arg-type]

    def attended(qkv: QKV, spec: Any, state: TokenState, engines: Any) -> Any:
        """Statistics are those of the numbers that attend."""
        out, stats = attend(qkv, spec, state, engines)
        with _fp32():
            same = qkv.in_one_type() if setting is _rounded else _in_bfloat16(qkv)
            _, expected = PlainEngine()(same, spec, state)
        for stat in spec.map_stats:
            assert stats[stat].dtype == torch.float32
            torch.testing.assert_close(stats[stat], expected[stat], rtol=1e-4, atol=1e-6)
        return out, stats

    monkeypatch.setattr(loop, "attend", attended)
    with torch.no_grad(), setting():
        logits = reduced(images(form).float())
    assert logits.isfinite().all()
    assert calls


def _in_bfloat16(qkv: QKV) -> QKV:
    q, k, v = (t.bfloat16() for t in (qkv.q, qkv.k, qkv.v))
    return dataclasses.replace(qkv, q=q, k=k, v=v)
