"""What does not fit is redone in halves; nothing else is caught, and nothing is lost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tokenred.analysis import evaluate
from tokenred.analysis.measure.out_of_memory import Portions, is_out_of_memory

CPU = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 123 bytes. Error code 12 (Cannot allocate memory)"
)


class Small:
    """Holds so many images, and remembers how many came."""

    def __init__(self, context: int, error: Exception) -> None:
        self.context, self.error = context, error
        self.seen: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        if len(images) > self.context:
            raise self.error
        return 2 * images


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU)]
)
def test_halves_until_it_fits_and_stays_there(error: Exception) -> None:
    small, portions = Small(3, error), Portions()
    batch = torch.arange(10.0)[:, None]
    with pytest.warns(UserWarning, match=r"out of memory with \d+ images at once") as warned:
        torch.testing.assert_close(portions(small, batch), 2 * batch)
    # 10 fail, 5 fail, then portions of 3.
    assert small.seen == [10, 5, 3, 3, 3, 1]
    assert ["continuing with 5" in str(w.message) for w in warned] == [True, False]
    small.seen.clear()
    torch.testing.assert_close(portions(small, batch[:7]), 2 * batch[:7])
    assert small.seen == [3, 3, 1]


def test_one_image_too_big_and_other_errors_come_through() -> None:
    with (
        pytest.warns(UserWarning, match="out of memory"),
        pytest.raises(torch.OutOfMemoryError, match="really"),
    ):
        Portions()(Small(0, torch.OutOfMemoryError("really")), torch.zeros(2, 1))
    with pytest.raises(RuntimeError, match="shapes"):
        Portions()(Small(0, RuntimeError("shapes differ")), torch.zeros(4, 1))


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert is_out_of_memory(RuntimeError("not enough memory: you tried to allocate 5 bytes"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


class Cramped(nn.Module):
    """A classifier that has room for so many images at once."""

    def __init__(self, model: nn.Module, context: int) -> None:
        super().__init__()
        self.model, self.context = model, context
        self.patch_embed, self.pretrained_cfg = model.patch_embed, model.pretrained_cfg

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.context:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.model(images)


def test_an_evaluation_goes_on_with_the_same_result(digits: nn.Module) -> None:
    expected = evaluate(digits, "digits", limit=50, batch_size=20, progress=False)
    with pytest.warns(UserWarning, match="out of memory"):
        found = evaluate(Cramped(digits, 6), "digits", limit=50, batch_size=20, progress=False)
    assert found.index.tolist() == expected.index.tolist()
    assert found.prediction.tolist() == expected.prediction.tolist()
    assert found.rank.tolist() == expected.rank.tolist()
