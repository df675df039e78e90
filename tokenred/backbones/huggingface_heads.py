"""What Hugging Face transformers' vision towers make of their last tokens: pooling and output."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.backbones.base import PerToken, Tokens
from tokenred.backbones.linear_cost import linear_macs
from tokenred.core.errors import BackboneError
from tokenred.core.tensors import weighted_mean

__all__ = ["Head"]


# By the maps after the pooling: the class of the output, and its fields but for hidden_states.
_KINDS: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {
    (): ("BaseModelOutputWithPooling", ("last_hidden_state", "pooler_output")),
    ("visual_projection",): ("CLIPVisionModelOutput", ("image_embeds", "last_hidden_state")),
    ("classifier",): ("ImageClassifierOutput", ("loss", "logits")),
    ("cls_classifier", "distillation_classifier"): (
        "DeiTForImageClassificationWithTeacherOutput",
        ("logits", "cls_logits", "distillation_logits"),
    ),
}


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

    def pooling(self, tower: Any) -> str:
        """See `Backbone.pooling`."""
        attends = self.pool == "attention" and self._layer(tower) is not None
        return "average" if attends or "mean" in self.pool else "token"

    @property
    def has_loss(self) -> bool:
        """Whether a model with this head takes labels."""
        return "loss" in _KINDS[self.out][1]

    def pooled(self, tower: Any, x: Tokens, prefix: int, weight: PerToken | None = None) -> Tensor:
        """The pooled features, or all tokens where the tower was built without pooling."""
        if self.pool == "class":
            return x[:, 0]
        if self.pool == "class norm":
            return tower.post_layernorm(x[:, 0])  # type: ignore[no-any-return]
        if self.pool == "teacher":
            return x[:, :2]
        if "mean" in self.pool:
            image = x[:, prefix:]
            if weight is None:
                mean = image.mean(dim=1)
            else:
                mean = weighted_mean(image, weight[:, prefix:]).squeeze(1)
            return mean if self.pool == "mean" else torch.cat((x[:, 0], mean), dim=1)
        layer = self._layer(tower)
        if layer is None:
            return x
        if weight is None or self.pool != "attention":
            return layer(x)  # type: ignore[no-any-return]
        return _attend(layer, x, weight)

    def logits(self, model: Any, pooled: Tensor) -> Tensor:
        """What the model makes of them."""
        if not self.out:
            return pooled
        if len(self.out) == 1:
            return getattr(model, self.out[0])(pooled)  # type: ignore[no-any-return]
        return torch.stack(self.each(model, pooled)).mean(dim=0)

    def each(self, model: Any, pooled: Tensor) -> list[Tensor]:
        """What each of several maps makes of its own token."""
        return [getattr(model, name)(pooled[:, i]) for i, name in enumerate(self.out)]

    def output(
        self,
        model: Any,
        kind: type,
        tokens: Tokens,
        pooled: Tensor,
        hidden_states: tuple[Tensor, ...] | None,
        labels: Tensor | None,
        loss_options: Mapping[str, Any],
    ) -> Any:
        """The output object that the model, of transformers' class ``kind``, returns of tokens.

        ``pooled`` are the tokens themselves where the model does not pool.
        """
        # The module of the model knows its own outputs; importing them would import the library.
        name, names = _KINDS[self.out]
        made = getattr(sys.modules[kind.__module__], name)
        found: dict[str, Any] = {"last_hidden_state": tokens, "loss": None}
        found["pooler_output"] = None if pooled is tokens else pooled
        if self.out:
            found["logits"] = found["image_embeds"] = self.logits(model, pooled)
        if len(self.out) > 1:
            each = self.each(model, pooled)
            found |= zip(("cls_logits", "distillation_logits"), each, strict=True)
        if labels is not None:
            logits = found["logits"]
            found["loss"] = model.loss_function(labels, logits, model.config, **loss_options)
        return made(hidden_states=hidden_states, **{name: found[name] for name in names})

    def macs(self, model: Any, tower: Any) -> dict[str, int]:
        """The fields of `ModelInfo` that say what the head costs."""
        fixed = sum(linear_macs(getattr(model, name)) for name in self.out)
        layer = self._layer(tower)
        if layer is None:
            return {"head_fixed": fixed}
        if self.pool == "pooler":
            return {"head_fixed": fixed + linear_macs(layer)}
        fixed += linear_macs(layer.mlp) + linear_macs(layer.attention.out_proj)
        # Keys and values of each token, and the one query's pair with it, in both products.
        width = layer.attention.embed_dim
        return {"head_per_token": 2 * width**2 + 2 * width, "head_fixed": fixed + width**2}

    def _layer(self, tower: Any) -> Any:
        """The tower's own pooling layer; None where it has none."""
        name = {"pooler": "pooler", "attention": "head"}.get(self.pool, "")
        return getattr(tower, name, None)


def _attend(layer: Any, x: Tokens, weight: PerToken) -> Float[Tensor, "b c"]:
    """SigLIP's pooling, with ``log w`` on the keys.

    Raises:
        BackboneError: for weights that are learned: a token of weight 0 would tell them nothing.
    """
    if weight.requires_grad:
        raise BackboneError(
            "a tower that pools by attention cannot leave tokens out in training, as training "
            "with masked tokens needs. Inference is not concerned."
        )
    probe = layer.probe.expand(x.shape[0], -1, -1)
    seen = weight.log().to(x.dtype)
    pooled = layer.attention(probe, x, x, key_padding_mask=seen, need_weights=False)[0]
    return (pooled + layer.mlp(layer.layernorm(pooled)))[:, 0]  # type: ignore[no-any-return]
