"""The cost of images under a method whose token counts depend on the image."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tokenred.analysis.measure.inputs import Data, reading
from tokenred.core.errors import InputError, PartError
from tokenred.core.values import Count, Size, checked
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.plan import adaptive_steps


@dataclass(frozen=True, eq=False)
class AdaptiveCost:
    """Measured token counts and costs of images.

    Attributes:
        counts: ``(images, L+1)`` image tokens before the first block and after every block.
        gmacs: ``(images,)`` 10⁹ multiply-accumulates, as `tokenred.gmacs` counts them.
        overhead_gmacs: ``(images,)`` cost of choosing tokens, not included in ``gmacs``.
    """

    counts: NDArray[np.int64]
    gmacs: NDArray[np.float64]
    overhead_gmacs: NDArray[np.float64]

    @property
    def mean_counts(self) -> NDArray[np.float64]:
        """``(L+1,)`` the mean over the images."""
        return np.asarray(self.counts.mean(axis=0), dtype=np.float64)

    @property
    def mean_gmacs(self) -> float:
        """The mean over the images."""
        return float(self.gmacs.mean())

    @property
    def mean_overhead_gmacs(self) -> float:
        """The mean over the images."""
        return float(self.overhead_gmacs.mean())

    def __repr__(self) -> str:
        return f"AdaptiveCost({len(self.gmacs)} images, mean_gmacs={self.mean_gmacs:.3f})"


def is_adaptive(reduced: ReducedViT) -> bool:
    """Whether token counts depend on the image, so that `tokenred.gmacs` is only an upper bound."""
    return bool(adaptive_steps(reduced.strategy, reduced.info.depth))


@checked
def adaptive_cost(
    reduced: ReducedViT,
    data: Tensor | Data,
    *,
    limit: Size | None = None,
    batch_size: Size = 32,
    workers: Count = 0,
    seed: Count = 0,
    split: str | None = None,
) -> AdaptiveCost:
    """Measure token counts and GMACs per image and on average, at the actual counts.

    With a model that is not adaptive, all images cost the same.

    Args:
        reduced: the model; it runs in eval mode, and its mode is restored.
        data: model inputs ``(n, ch, H, W)``, or data as for `tokenred.analysis.evaluate`.
        limit: maximum number of images.
        batch_size, workers: for the forwards and the loading.
        seed: seed of the subset that ``limit`` chooses in a dataset.
        split: see `tokenred.data.open_dataset`.

    Raises:
        PartError: if the model is not wrapped.
        ConfigError: if a number is out of range.
        InputError: if there are no images.
        TokenredError: as raised by `tokenred.analysis.evaluate`.
    """
    if not isinstance(reduced, ReducedViT):
        raise PartError(f"expected a model from tokenred.wrap, got {type(reduced).__name__}.")
    if isinstance(data, Tensor):
        if not len(data):
            raise InputError("expected at least one image to measure the cost of, got none.")
        alone = torch.zeros(len(data), dtype=torch.long)
        data = DataLoader(TensorDataset(data, alone), batch_size)
    weight = next(reduced.parameters())
    counts: list[Tensor] = []
    with reading(
        [reduced], data, "cost", split=split, batch_size=batch_size, workers=workers, limit=limit,
        seed=seed, progress=False,
    ) as read:  # fmt: skip
        for images, _, _ in read.batches:
            counts.append(reduced.alive_counts(images.to(weight)).cpu())
    size = (int(images.shape[2]), int(images.shape[3]))
    rows = torch.cat(counts)
    # Many images have equal counts.
    distinct, of = rows.unique(dim=0, return_inverse=True)
    costs = [reduced.cost(size, row) for row in distinct.tolist()]
    each = np.array([(cost.gmacs, cost.overhead_gmacs) for cost in costs])[of.numpy()]
    return AdaptiveCost(rows.numpy(), *each.T)
