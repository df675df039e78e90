"""What a model makes of labelled images, image by image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenred.core.errors import ConfigError

__all__ = ["Evaluation", "from_rows", "ranked"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model makes of labelled images; one entry an image that could be read.

    Attributes:
        index: ``(n,)`` positions of the images in the dataset.
        label, prediction: ``(n,)`` classes.
        rank: ``(n,)`` how many classes the model puts before the label; 0 is right.
        classes: number of classes.
        skipped: name and reason of each image that could not be read; they are not counted.
        seconds: wall-clock time, loading included, of all models that were evaluated together; of
            several processes, the longest.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    rank: NDArray[np.int64]
    classes: int
    skipped: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def count(self) -> int:
        """Images counted."""
        return len(self.label)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``(n,)`` whether each image is right."""
        return np.equal(self.rank, 0)

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return self.topk(1)

    @property
    def top5(self) -> float | None:
        """Top-5 accuracy in percent; None for fewer than 5 classes, where all would be right."""
        return self.topk(5) if self.classes >= 5 else None

    def topk(self, k: int) -> float:
        """Percent of images whose label is among the first ``k`` classes.

        Raises:
            ConfigError: for a k that is no class count of this model.
        """
        if not 1 <= k <= self.classes:
            raise ConfigError(f"expected k between 1 and {self.classes} classes, got {k!r}.")
        return 100.0 * float((self.rank < k).mean())

    def __repr__(self) -> str:
        top5 = "" if self.top5 is None else f"top5={self.top5:.2f}, "
        return (
            f"Evaluation(top1={self.top1:.2f}, {top5}count={self.count}, "
            f"skipped={len(self.skipped)}, seconds={self.seconds:.1f})"
        )


def ranked(logits: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
    """Rows ``(b, 4)`` of index, label, prediction, rank; of equal logits the first class leads."""
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(dim=1)
    prediction = torch.where(rank == 0, labels, logits.argmax(dim=1))
    return torch.stack((indices.long(), labels.long(), prediction, rank), dim=1)


def from_rows(
    rows: Tensor, classes: int, skipped: tuple[tuple[str, str], ...], seconds: float
) -> Evaluation:
    """The evaluation of ``(n, 4)`` rows as `ranked` gives them."""
    index, label, prediction, rank = rows.T.contiguous().numpy()
    return Evaluation(index, label, prediction, rank, classes, skipped, seconds)
