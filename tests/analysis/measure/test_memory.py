"""The peak of a known program to the byte; of a forward here and in a fresh interpreter."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tokenred as tr
from tokenred.analysis import peak_memory
from tokenred.analysis.measure.memory import allocation_peak, main
from tokenred.core.errors import ConfigError, InputError


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


def test_in_this_process(digits: nn.Module) -> None:
    one, four = (peak_memory(digits, batch_size=b) for b in (1, 4))
    assert 0 < one.peak_bytes < four.peak_bytes
    assert (one.own_process, one.resident_bytes) == (False, None)
    assert (one.image_shape, one.precision, one.device) == ((3, 32, 32), "float32", "cpu")
    # More than the widest tensor: the MLP's hidden layer.
    assert four.peak_bytes > 4 * 65 * digits.blocks[0].mlp.fc1.out_features * 4
    assert f"{four.peak_mib:.1f} MiB" in str(four)
    early = tr.strategy("random", keep_rate=0.2, layers=(0,)).replace(where="before_block")
    assert peak_memory(tr.wrap(digits, early), batch_size=4).peak_bytes < four.peak_bytes


def test_in_a_fresh_interpreter(digits: nn.Module) -> None:
    found = peak_memory("digits", batch_size=4, strategy="gtp:P=4", threads=1)
    assert found.own_process
    here = peak_memory(tr.wrap(digits, "gtp:P=4"), batch_size=4, threads=1)
    # Constants that a model makes once are in the first forward only.
    assert here.peak_bytes <= found.peak_bytes <= here.peak_bytes + 200_000
    assert found.resident_bytes is None or found.resident_bytes > 0


def test_refused(digits: nn.Module) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        peak_memory("digits", batch_size=0)
    with pytest.raises(ConfigError, match="wrap this one yourself"):
        peak_memory(digits, strategy="gtp")
    with pytest.raises(InputError):
        peak_memory(digits, (3, 33, 32))
    with pytest.raises(tr.errors.UnknownNameError):
        peak_memory("digits", strategy="nothing")
    with pytest.raises(TimeoutError, match=r"longer than 0\.1 s"):
        peak_memory("digits", timeout=0.1)


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ({"returncode": -9}, MemoryError, "signal 9"),
        ({"stdout": pickle.dumps(InputError("bad"))}, InputError, "bad"),
        ({"stdout": pickle.dumps(MemoryError("full"))}, MemoryError, "full"),
        ({"returncode": 1, "stderr": b"hm\nKeyError: 'x'"}, RuntimeError, "KeyError: 'x'"),
        ({}, RuntimeError, "no output"),
    ],
)
def test_a_fresh_interpreter_that_fails(
    monkeypatch: pytest.MonkeyPatch, output: dict[str, Any], error: type[Exception], message: str
) -> None:
    silent: dict[str, Any] = {"returncode": 0, "stdout": b"", "stderr": b""}
    done = subprocess.CompletedProcess([], **silent | output)
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: done)
    with pytest.raises(error, match=message):
        peak_memory("digits")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fresh interpreter's program, run here."""

    def run(command: list[str], input: bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
        given, taken = io.TextIOWrapper(io.BytesIO(input)), io.TextIOWrapper(io.BytesIO())
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", given)
            patch.setattr(sys, "stdout", taken)
            main()
        answer = taken.buffer.getvalue()  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(command, 0, answer, b"")

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("recipe", [None, "tome@0.7", "idlevit"])
def test_strategies_travel(recipe: str | None) -> None:
    found = peak_memory("digits", batch_size=1, strategy=recipe)
    assert found.peak_bytes > 0
    assert found.own_process


@pytest.mark.usefixtures("fresh")
def test_sizes_types_and_errors_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    found = peak_memory("digits", (3, 16, 8), 2, dtype=torch.bfloat16)
    assert (found.image_shape, found.precision) == ((3, 16, 8), "bfloat16")
    assert peak_memory("digits", amp=torch.bfloat16, batch_size=1).precision == "bfloat16"
    with pytest.raises(tr.errors.UnknownNameError, match="vit_tinny"):
        peak_memory("vit_tinny")
    with pytest.raises(InputError, match="33x32"):
        peak_memory("digits", (3, 33, 32))

    def fail(*args: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(nn.Linear, "forward", fail)
    with pytest.raises(MemoryError, match="can't allocate"):
        peak_memory("digits", batch_size=1)


@pytest.mark.usefixtures("fresh")
def test_parts_of_the_users_own_travel() -> None:
    class Own(tr.Scorer):
        def __call__(self, state: tr.TokenState, attention: object) -> Tensor:
            return state.image.norm(dim=-1)

    own = tr.strategy("topk").replace(scorer=Own())
    assert peak_memory("digits", batch_size=1, strategy=own).own_process
    object.__setattr__(own.scorer, "lock", threading.Lock())
    with pytest.raises(ConfigError, match="pass the model itself"):
        peak_memory("digits", batch_size=1, strategy=own)
