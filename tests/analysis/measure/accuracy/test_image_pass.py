"""One pass: batches keep their numbers, and bad images are named where they were met."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tokenred.analysis.measure.accuracy.image_pass import Batch, Options, run_share
from tokenred.core.errors import InputError

OPTIONS = Options(
    batch_size=2, workers=0, limit=None, device=None, amp=None, channels_last=False,
    progress=False, seed=0,
)  # fmt: skip
DATA: DataLoader[tuple[Tensor, ...]] = DataLoader(TensorDataset(torch.eye(4)))


class Times(nn.Module):
    """Its input as logits, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def batch(*labels: int) -> Batch:
    return torch.eye(4)[: len(labels)], torch.tensor(labels), torch.arange(len(labels)) + 10


def test_batches_by_number_and_model() -> None:
    models = {"as it is": Times(1.0), "upside down": Times(-1.0)}
    stream = [(1, batch(0, 1)), (3, batch(-1, -1)), (5, batch(-1, 1, 0))]
    found = run_share(models, DATA, stream, None, None, OPTIONS)
    assert {name: list(rows) for name, rows in found.rows.items()} == {
        "as it is": [1, 5],
        "upside down": [1, 5],
    }
    assert found.rows["as it is"][5].tolist() == [[11, 1, 1, 0], [12, 0, 2, 1]]
    assert found.rows["upside down"][1][:, 3].tolist() == [3, 3]
    assert found.classes == {"as it is": 4, "upside down": 4}
    assert {number: [name for name, _ in names] for number, names in found.skipped.items()} == {
        3: ["image 10", "image 11"],
        5: ["image 10"],
    }


def test_no_batch_is_no_result() -> None:
    found = run_share({"m": Times(1.0)}, DATA, [], None, None, OPTIONS)
    assert (found.rows, found.classes, found.skipped) == ({"m": {}}, {"m": 0}, {})


def test_refused_outputs() -> None:
    with pytest.raises(InputError, match="NaN"):
        run_share({"m": Times(torch.nan)}, DATA, [(0, batch(0))], None, None, OPTIONS)
    with pytest.raises(InputError, match=r"expected logits \(1, classes\) .* got list"):
        run_share({"m": Lists()}, DATA, [(0, batch(0))], None, None, OPTIONS)


class Lists(nn.Module):
    def forward(self, x: Tensor) -> list[float]:
        return x.tolist()
