"""timm's Eva: EVA, EVA-02, rotary ViTs, DINOv3, Perception Encoder and related models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from timm.models import eva
from torch import Tensor, nn

from tokenred.backbones.base import Embedded, Tokens, raster
from tokenred.backbones.vision_transformer import TimmViT
from tokenred.backbones.vit_blocks import PostNorm, PreNorm
from tokenred.core.state import TokenState


@dataclass(frozen=True, eq=False)
class Rotary:
    """The rotary embeddings of a grid, made once per forward: `TokenState.positions`.

    Attributes:
        table: sines and cosines, ``(N0+1, 2d)``, or ``(L, h, N0+1, 2d)`` if each block and head
            has its own. The last row rotates nothing: it is for tokens of no single patch.
        index: all positions in order, as they entered the first block; None if some were dropped.
    """

    table: Float[Tensor, "*lh N0_and_1 dd"]
    index: Int[Tensor, "b N0"] | None

    @staticmethod
    def of(rope: Float[Tensor, "*lh N0 dd"], index: Int[Tensor, "b N0"] | None) -> Rotary:
        """From timm's embedding of the whole grid."""
        still = torch.zeros_like(rope[..., :1, :])
        still[..., rope.shape[-1] // 2 :] = 1.0  # sine 0, cosine 1
        return Rotary(torch.cat((rope, still), dim=-2), index)

    def at(self, state: TokenState) -> Float[Tensor, "..."]:
        """The embeddings of the tokens in a state, as timm's blocks take them.

        Shapes:
            ``(N0, 2d)`` or ``(h, N0, 2d)`` while all tokens are in place, then ``(b, 1, n, 2d)``
            or ``(b, h, n, 2d)``.
        """
        rows = self.table if self.table.ndim == 2 else self.table[state.layer]
        if state.index is self.index:
            return rows[..., :-1, :]
        last, width = rows.shape[-2] - 1, rows.shape[-1]
        at = torch.where(state.index < 0, last, state.index)
        taken = F.embedding(at, rows.movedim(-2, 0).flatten(1))
        shape = (*at.shape, taken.shape[-1] // width, width)  # no −1: the batch may be empty
        return taken.view(shape).transpose(1, 2)


class EvaPreNorm(PreNorm):
    """``x += γ1 · attn(norm1 x); x += γ2 · mlp(norm2 x)`` (``EvaBlock``)."""

    def run(self, state: TokenState) -> Tokens | None:
        return self.whole(state.x, rope=self._rope(state))  # type: ignore[no-any-return]

    def _rope(self, state: TokenState) -> Tensor | None:
        return state.positions.at(state) if isinstance(state.positions, Rotary) else None


class EvaPostNorm(EvaPreNorm, PostNorm):
    """``x += norm1(attn(x)); x += norm2(mlp(x))`` (``EvaBlockPostNorm``)."""


class EvaBackbone(TimmViT):
    """Adapter of ``timm.models.Eva``.

    Rotary positions follow the tokens: a token keeps the position of its patch, even after others
    were merged into it. A token of no single patch (index −1, such as EViT's fused token) is not
    rotated, like the prefix.
    """

    family = "timm's Eva (EVA, EVA-02, rotary ViT, DINOv3, Perception Encoder)"

    kinds = (eva.Eva,)
    opened_by = ((eva.EvaBlock, EvaPreNorm), (eva.EvaBlockPostNorm, EvaPostNorm))
    # AttentionRope is new in timm 1.0.16.
    attentions = tuple(
        getattr(eva, name) for name in ("EvaAttention", "AttentionRope") if hasattr(eva, name)
    )

    def embed(self, images: Float[Tensor, "b ch H W"]) -> Embedded:
        m, p = self.model, self.model.num_prefix_tokens
        grid = self.grid_of(images.shape[2], images.shape[3])
        if m.patch_drop is not None and m.training:
            # Positions of all patches are needed, so dropout comes last.
            full, rope = type(m)._pos_embed(_Undropped(m), m.patch_embed(images))
            x, kept = m.patch_drop(full)
            positions = None if rope is None else Rotary.of(rope, None)
            return Embedded(self._normed(x), kept, self._normed(full)[:, p:], grid, positions)
        x, rope = m._pos_embed(m.patch_embed(images))
        x, index = self._normed(x), raster(x, grid)
        positions = None if rope is None else Rotary.of(rope, index)
        return Embedded(x, index, x[:, p:], grid, positions)

    def _normed(self, x: Tokens) -> Tokens:
        # New in timm 1.0.16.
        norm = getattr(self.model, "norm_pre", None)
        return x if norm is None else norm(x)


class _Undropped:
    """A view of a model without patch dropout, to pass to the model's own embedding."""

    patch_drop = None

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
