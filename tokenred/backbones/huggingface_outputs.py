"""The output objects of Hugging Face transformers' vision models."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenred.backbones.huggingface_heads import Head

__all__ = ["has_loss", "output_object"]

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


def has_loss(head: Head) -> bool:
    """Whether a model with this head takes labels."""
    return "loss" in _KINDS[head.out][1]


def output_object(
    model: Any,
    kind: type,
    head: Head,
    tokens: Tensor,
    pooled: Tensor,
    hidden_states: tuple[Tensor, ...] | None,
    labels: Tensor | None,
    loss_options: Mapping[str, Any],
) -> Any:
    """What the model returns, of these tokens.

    Args:
        model: the model.
        kind: the class of transformers' that it is of.
        head: how it pools.
        tokens: after the final norm, ``(b, N, c)``.
        pooled: of them; the tokens themselves where the model does not pool.
        hidden_states: before the first block and after each, or None.
        labels: for the loss, or None.
        loss_options: what else the model's loss is told.
    """
    # The module of the model knows its own outputs; importing them would import the library.
    name, names = _KINDS[head.out]
    made = getattr(sys.modules[kind.__module__], name)
    found: dict[str, Any] = {"last_hidden_state": tokens, "loss": None}
    found["pooler_output"] = None if pooled is tokens else pooled
    if head.out:
        found["logits"] = found["image_embeds"] = head.logits(model, pooled)
    if len(head.out) > 1:
        found |= zip(("cls_logits", "distillation_logits"), head.each(model, pooled), strict=True)
    if labels is not None:
        found["loss"] = model.loss_function(labels, found["logits"], model.config, **loss_options)
    return made(hidden_states=hidden_states, **{name: found[name] for name in names})
