"""What became of an image's patches: the data behind the token pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Picture", "PictureRow", "Stage"]


@dataclass(frozen=True, eq=False)
class Stage:
    """An image's patches after one block; maps are ``(gh, gw)``.

    Attributes:
        layer: the block, from 0.
        tokens: image tokens that are left.
        alive: whether the token of this patch is still there.
        idle: whether it was left out of this block, and waits.
        holder: the patch whose token stands for this one; the patch itself where it is alive; −1
            where there is no such patch.
        pooled: whether a token of no single patch holds it, such as EViT's fused token.
        edges: ``(k, 2)`` patches, a token that is left and one that is gone, next to each other in
            the token graph; none unless they were asked for.
    """

    layer: int
    tokens: int
    alive: NDArray[np.bool_]
    idle: NDArray[np.bool_]
    holder: NDArray[np.int64]
    pooled: NDArray[np.bool_]
    edges: NDArray[np.int64]

    @property
    def gone(self) -> NDArray[np.bool_]:
        """Whether the token of this patch is no longer there."""
        return ~self.alive

    @property
    def held(self) -> NDArray[np.bool_]:
        """Whether the patch is gone and the token of another patch stands for it."""
        return self.gone & (self.holder >= 0)

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Whether nothing of the patch is left in any token."""
        return self.gone & (self.holder < 0) & ~self.pooled


@dataclass(frozen=True, eq=False)
class PictureRow:
    """One strategy on the image.

    Attributes:
        label: the strategy, as it was written.
        stages: one for each block asked for.
        prediction: the class, or None for a model that gives no logits ``(b, classes)``.
        probability: of that class, NaN likewise.
    """

    label: str
    stages: tuple[Stage, ...]
    prediction: int | None
    probability: float


@dataclass(frozen=True, eq=False)
class Picture:
    """An image under several strategies.

    Attributes:
        pixels: ``(H, W, 3)`` from 0 to 1, as the model sees them.
        grid: patches down and across.
        depth: blocks of the model.
        dense: the row of the unreduced model, without stages.
        rows: one a strategy.
        classes: names of the classes, or None.
    """

    pixels: NDArray[np.float32]
    grid: tuple[int, int]
    depth: int
    dense: PictureRow
    rows: tuple[PictureRow, ...]
    classes: tuple[str, ...] | None

    def said(self, row: PictureRow) -> str:
        """What a model makes of the image, "7 (92%)"; empty where it makes no classes of it."""
        if row.prediction is None:
            return ""
        known = self.classes is not None and row.prediction < len(self.classes)
        name = self.classes[row.prediction] if known and self.classes else f"class {row.prediction}"
        share = "<1%" if row.probability < 0.01 else f"{row.probability:.0%}"
        return f"{name} ({share})"
