"""Peak memory of a forward, here and in a fresh interpreter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import tokenred as tr
from tokenred.analysis import PeakMemory, peak_memory
from tokenred.analysis.measure.speed import memory
from tokenred.core.errors import ConfigError, InputError

IMAGE = 3 * 32 * 32 * 4


def test_in_this_process(digits: nn.Module) -> None:
    one, four = (peak_memory(digits, batch_size=b) for b in (1, 4))
    assert 0 < one.peak_bytes < four.peak_bytes
    assert (one.own_process, one.resident_bytes) == (False, None)
    assert (one.image_shape, one.precision, one.device) == ((3, 32, 32), "float32", "cpu")
    # More than the widest tensor: the MLP's hidden layer.
    assert four.peak_bytes > 4 * 65 * digits.blocks[0].mlp.fc1.out_features * 4
    assert f"{four.peak_mib:.1f} MiB" in str(four)
    assert PeakMemory.from_dict(four.to_dict()) == four


def test_fewer_tokens_cost_no_more(digits: nn.Module) -> None:
    early = tr.strategy("random", keep_rate=0.2, layers=(0,)).replace(where="before_block")
    fast = tr.wrap(digits, early)
    assert peak_memory(fast, batch_size=8).peak_bytes < peak_memory(digits, batch_size=8).peak_bytes


def test_weights_and_images_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tr.models.digits_vit(pretrained=False)
    fast = tr.wrap(model, "topk")
    monkeypatch.setattr(type(fast), "forward", lambda self, images: images.mul(2.0))
    # The one product, and the factor as a tensor of a number.
    extra = peak_memory(fast, batch_size=2).peak_bytes - 2 * IMAGE
    assert 0 <= extra <= 16


def test_in_a_fresh_interpreter(digits: nn.Module) -> None:
    found = peak_memory("digits", batch_size=4, strategy=tr.strategy("gtp", P=4), threads=1)
    assert found.own_process
    here = peak_memory(tr.wrap(digits, tr.strategy("gtp", P=4)), batch_size=4, threads=1)
    # Constants that a model makes once are in the first forward only.
    assert here.peak_bytes <= found.peak_bytes <= here.peak_bytes + 200_000
    if found.resident_bytes is not None:
        assert found.resident_bytes > 0


def test_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = []

    def answer(job, timeout):  # type: ignore[no-untyped-def]
        jobs.append((job, timeout))
        about = {"batch_size": 2, "image_shape": [3, 64, 64], "precision": "bfloat16"}
        return about | {"peak_bytes": 5, "resident_bytes": None, "device": "cpu",
                        "own_process": True}  # fmt: skip

    monkeypatch.setattr(memory, "run_fresh", answer)
    found = peak_memory(
        "digits", (3, 64, 64), 2, strategy="tome", dtype=torch.bfloat16, timeout=9, seed=3
    )
    assert found.image_shape == (3, 64, 64)
    ((job, timeout),) = jobs
    assert timeout == 9
    assert job["strategy"]["schedule"]["name"] == "Constant"
    del job["strategy"]
    assert job == {
        "model": "digits", "image_shape": [3, 64, 64], "batch_size": 2, "threads": None,
        "device": "cpu", "amp": None, "dtype": "bfloat16", "seed": 3, "share": None,
    }  # fmt: skip


def test_refused(digits: nn.Module) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        peak_memory("digits", batch_size=0)
    with pytest.raises(ConfigError, match="wrap this one yourself"):
        peak_memory(digits, strategy="gtp")
    with pytest.raises(InputError):
        peak_memory(digits, (3, 33, 32))
    with pytest.raises(tr.errors.UnknownNameError):
        peak_memory("digits", strategy="nothing")

    @tr.register_scorer("OwnForMemory")
    class OwnForMemory(tr.Scorer):
        def __call__(self, state: tr.TokenState, attention: object) -> Tensor:
            return state.image.norm(dim=-1)

    with pytest.raises(ConfigError, match="pass the model itself"):
        peak_memory("digits", strategy=tr.strategy("topk", scorer="OwnForMemory"))
