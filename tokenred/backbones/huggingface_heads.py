"""What Hugging Face transformers' vision towers do with their last tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.backbones.base import linear_macs
from tokenred.core.errors import BackboneError

__all__ = ["Head"]


@dataclass(frozen=True)
class Head:
    """Pooling, and the linear maps after it.

    Attributes:
        pool: ``"class"`` (the class token), ``"class norm"`` (CLIP's: the norm belongs to the
            pooling), ``"pooler"`` (a layer of the tower, on the class token), ``"mean"`` (of the
            image tokens), ``"class and mean"``, ``"teacher"`` (class and distillation token), or
            ``"attention"`` (SigLIP's).
        out: names of linear maps of the model. Several are for one token each, and averaged.
    """

    pool: str
    out: tuple[str, ...] = ()

    def pooled(self, tower: Any, x: Float[Tensor, "b N c"], prefix: int) -> Tensor:
        """The pooled features, or all tokens where the tower was built without pooling."""
        if self.pool == "class":
            return x[:, 0]
        if self.pool == "class norm":
            return tower.post_layernorm(x[:, 0])  # type: ignore[no-any-return]
        if self.pool == "teacher":
            return x[:, :2]
        if self.pool == "mean":
            return x[:, prefix:].mean(dim=1)
        if self.pool == "class and mean":
            return torch.cat((x[:, 0], x[:, prefix:].mean(dim=1)), dim=1)
        layer = self._layer(tower)
        return x if layer is None else layer(x)

    def logits(self, model: Any, pooled: Tensor) -> Tensor:
        """What the model makes of them."""
        maps = [getattr(model, name) for name in self.out]
        if not maps:
            return pooled
        if len(maps) == 1:
            return maps[0](pooled)  # type: ignore[no-any-return]
        each = [linear(pooled[:, i]) for i, linear in enumerate(maps)]
        return torch.stack(each).mean(dim=0)

    def leave_out(
        self, x: Float[Tensor, "b N c"], mask: Float[Tensor, "b N"], prefix: int
    ) -> Float[Tensor, "b N c"]:
        """See `Backbone.leave_out`.

        Raises:
            BackboneError: for pooling by attention.
        """
        if self.pool == "attention":
            raise BackboneError(
                "a tower that pools by attention cannot leave tokens out, as training with masked "
                "tokens needs. Inference is not concerned."
            )
        if "mean" not in self.pool:
            return x
        # Weights that turn the mean of all into the mean of those that stay.
        mask = mask[:, prefix:].to(x.dtype)
        share = mask.mean(dim=1, keepdim=True).clamp_min(1 / mask.shape[1])
        return torch.cat((x[:, :prefix], x[:, prefix:] * (mask / share)[..., None]), dim=1)

    def macs(self, model: Any, tower: Any) -> dict[str, int]:
        """The fields of `ModelInfo` that say what the head costs."""
        fixed = sum(linear_macs(getattr(model, name)) for name in self.out)
        layer = self._layer(tower)
        if layer is None:
            return {"head_fixed": fixed}
        fixed += linear_macs(layer)
        if self.pool == "pooler":
            return {"head_fixed": fixed}
        # Keys and values of each token, and the one query's pair with it, in both products.
        width = layer.attention.embed_dim
        return {"head_per_token": 2 * width**2 + 2 * width, "head_fixed": fixed + width**2}

    def _layer(self, tower: Any) -> Any:
        """The tower's own pooling layer; None where it has none."""
        name = {"pooler": "pooler", "attention": "head"}.get(self.pool, "")
        return getattr(tower, name, None)
