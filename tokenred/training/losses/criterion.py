"""What fine-tuning minimises: cross-entropy and the weighted terms of a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tokenred.core.errors import ConfigError, InputError, UnknownNameError
from tokenred.core.tensors import gather_tokens
from tokenred.core.values import Magnitude, Probability, checked
from tokenred.training.losses.terms import (
    cross_entropy,
    distillation_kl,
    kept_token_mse,
    ratio_loss,
    unit_feature_mse,
)

__all__ = ["CRITERIA", "Criterion", "make_criterion"]

CRITERIA: dict[str, dict[str, Any]] = {
    "ce": {},
    "evit": {"distill": 0.5},
    "dynamicvit": {"distill": 0.5, "over": "student", "kept_tokens": 0.5, "ratio": 2.0},
    "idlevit": {"distill": 5.0, "cls_feature": 500.0, "token_cut": 20.0},
}
"""The weights of each method's terms.

DynamicViT's and IdleViT's are their papers'. EViT trains by cross-entropy; its distillation, for
those who give it a teacher, is ours.
"""


@checked
@dataclass(frozen=True)
class Criterion:
    """Cross-entropy plus weighted terms. A term of weight 0 is not computed.

    Args:
        label_smoothing: of the cross-entropy.
        distill: weight of `distillation_kl`. Needs ``teacher_logits``.
        over: its direction, ``"teacher"`` for KL(teacher‖student), or ``"student"``.
        kept_tokens: weight of `kept_token_mse` (DynamicViT). Needs ``teacher_features``.
        cls_feature: weight of `unit_feature_mse` of the CLS token (IdleViT); of LV-ViT, whose
            head reads all tokens, of those that the last block did not idle. Needs
            ``teacher_features``.
        ratio: weight of `ratio_loss` (DynamicViT).
        shares: what each stage should keep; None for the schedule's, ρ, ρ², ρ³.
        token_cut: weight of `token_cut` (IdleViT), the mean over blocks.
        reference: as the released programs. IdleViT's counts the 1st, 3rd, 5th … idle block only
            and divides by all of them. DynamicViT's teaches LV-ViT by its two classifiers apart:
            cross-entropy and `distillation_kl` of CLS's logits, and in the place of
            `kept_token_mse` the divergence of the kept tokens' logits. Its ``teacher_logits`` are
            the pair that LV-ViT's ``forward_head(features, return_tokens=True)`` gives.
    """

    label_smoothing: Probability = 0.0
    distill: Magnitude = 0.0
    over: Literal["teacher", "student"] = "teacher"
    kept_tokens: Magnitude = 0.0
    cls_feature: Magnitude = 0.0
    ratio: Magnitude = 0.0
    shares: tuple[Probability, ...] | None = None
    token_cut: Magnitude = 0.0
    reference: bool = False

    @property
    def reads_apart(self) -> bool:
        """Whether it wants a teacher's logits of CLS and of tokens, where a model has both."""
        return self.reference and self.kept_tokens > 0

    def __call__(
        self,
        logits: Tensor,
        targets: Tensor,
        aux: Mapping[str, Tensor],
        teacher_logits: Tensor | tuple[Tensor, Tensor] | None = None,
        teacher_features: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What to minimise, and its parts by name, without their weights and gradients.

        A term whose teacher is not given is left out.

        Args:
            logits: ``(b, classes)`` of ``forward_train``.
            targets: classes or probabilities; see `cross_entropy`.
            aux: the other result of ``forward_train``.
            teacher_logits: ``(b, classes)`` of the teacher, usually the dense model; see
                ``reference`` for LV-ViT's.
            teacher_features: ``(b, N, c)``, its ``forward_features``.

        Raises:
            InputError: for what does not match, or where ``aux`` lacks what a term reads.
        """
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise InputError(
                f"logits must be one tensor (b, classes), got {_described(logits)}. A distilled "
                "model gives one after set_distilled_training(False)."
            )
        terms: dict[str, tuple[float, Callable[[], Tensor]]] = {}
        of_tokens = None
        if self.reads_apart and teacher_logits is not None and "token_logits" in aux:
            logits, (teacher_logits, of_tokens) = aux["cls_logits"], _pair(teacher_logits)
        if teacher_logits is not None:
            given, said = _one(teacher_logits), logits
            terms["distill"] = (self.distill, lambda: distillation_kl(said, given, self.over))
        if of_tokens is not None:
            theirs = of_tokens
            terms["kept_tokens"] = (self.kept_tokens, lambda: _token_kl(aux, theirs, self.over))
        elif teacher_features is not None:
            dense = teacher_features
            terms["kept_tokens"] = (self.kept_tokens, lambda: _kept_tokens(aux, dense))
        if teacher_features is not None:
            whole = teacher_features
            terms["cls_feature"] = (self.cls_feature, lambda: _cls_feature(aux, whole))
        terms["ratio"] = (self.ratio, lambda: _ratio(aux, self.shares))
        terms["token_cut"] = (self.token_cut, lambda: _token_cut(aux, self.reference))

        total = cross_entropy(logits, targets, self.label_smoothing)
        parts = {"ce": total.detach()}
        for name, (weight, compute) in terms.items():
            if weight:
                value = compute()
                total = total + weight * value
                parts[name] = value.detach()
        return total, parts


@checked
def make_criterion(name: str, /, *, reference: bool = False, **weights: Any) -> Criterion:
    """The criterion of a method, with other weights where some are given.

    Args:
        name: ``"ce"``, ``"evit"``, ``"dynamicvit"`` or ``"idlevit"``.
        reference: as the released programs where they depart from the papers: KL(teacher‖student)
            in DynamicViT, and see `Criterion`.
        weights: fields of `Criterion`.

    Raises:
        UnknownNameError: for another name, or a weight that there is not.
        ConfigError: for a weight outside its range.
    """
    if name not in CRITERIA:
        raise UnknownNameError.of("criterion", name, CRITERIA)
    known = [field.name for field in dataclasses.fields(Criterion)]
    for key in weights:
        if key not in known:
            raise UnknownNameError.of("weight of a criterion", key, known)
    released = {"over": "teacher", "reference": True} if reference else {}
    return Criterion(**{**CRITERIA[name], **released, **weights})


def _kept_tokens(aux: Mapping[str, Tensor], teacher: Tensor) -> Tensor:
    return kept_token_mse(_read(aux, "features"), teacher, _read(aux, "index"), aux.get("mask"))


def _cls_feature(aux: Mapping[str, Tensor], teacher: Tensor) -> Tensor:
    features = _read(aux, "features")
    if "token_logits" in aux and "idle_mask" in aux:
        return unit_feature_mse(features, teacher, aux["idle_mask"])
    return unit_feature_mse(features[:, :1], teacher[:, :1])


def _token_cut(aux: Mapping[str, Tensor], reference: bool) -> Tensor:
    cut = _read(aux, "token_cut")
    return cut[:, ::2].sum(dim=1).mean() / cut.shape[1] if reference else cut.mean()


def _token_kl(aux: Mapping[str, Tensor], teacher: Tensor, over: str) -> Tensor:
    ours = _read(aux, "token_logits")
    teacher = gather_tokens(teacher, _read(aux, "index").clamp_min(0))
    kept = torch.ones_like(ours[..., 0]) if "mask" not in aux else aux["mask"].detach()
    kept = kept[:, -ours.shape[1] :] > 0.5
    if not kept.any():
        return ours.new_zeros(())
    return distillation_kl(ours[kept], teacher[kept], over)


def _pair(logits: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    if isinstance(logits, Tensor) or len(logits) != 2:
        raise InputError(
            "the released losses of LV-ViT want the teacher's logits of CLS and of its tokens; "
            "pass teacher.forward_head(features, return_tokens=True) as teacher_logits."
        )
    return logits


def _one(logits: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    if isinstance(logits, Tensor):
        return logits
    raise InputError("teacher_logits must be one tensor (b, classes), got a pair.")


def _ratio(aux: Mapping[str, Tensor], shares: tuple[float, ...] | None) -> Tensor:
    kept = _read(aux, "kept_share")
    if shares is None:
        return ratio_loss(kept, _read(aux, "target_share"))
    if len(shares) != kept.shape[1]:
        raise ConfigError(f"{len(shares)} shares for {kept.shape[1]} stages; give one for each.")
    return ratio_loss(kept, kept.new_tensor(shares))


def _read(aux: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in aux:
        raise InputError(
            f"a term of this criterion reads {key!r}, and aux has {', '.join(sorted(aux))}. Pass "
            "what forward_train gives in training mode, of a model whose method has that term and "
            "removes tokens; or set the term's weight to 0."
        )
    return aux[key]


def _described(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
