"""Losses for fine-tuning: the terms, and their combination for each method.

Each term is a mean over the batch, in fp32 or better. Teachers and masks are constants.

::

    criterion = make_criterion("dynamicvit")
    logits, aux = reduced.forward_train(images)
    loss, parts = criterion(logits, targets, aux, teacher_logits, teacher_features)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.core.errors import ConfigError, InputError, UnknownNameError
from tokenred.core.tensors import at_least_fp32, gather_tokens, unit_vectors
from tokenred.core.values import Magnitude, Probability, checked

_TERMS = ("distill", "kept_tokens", "cls_feature", "ratio", "token_cut", "second", "consistency")

CRITERIA: dict[str, dict[str, Any]] = {
    "ce": {},
    "evit": {"distill": 0.5},
    "dynamicvit": {"distill": 0.5, "over": "student", "kept_tokens": 0.5, "ratio": 2.0},
    "idlevit": {"distill": 5.0, "cls_feature": 500.0, "token_cut": 20.0},
    "mctf": {"second": 1.0, "consistency": 3.0, "confident": 0.4},
}
"""The weights of each method's terms.

DynamicViT's and IdleViT's are from their papers, MCTF's from its code. EViT trains with
cross-entropy; its distillation, used only with a teacher, is our addition.
"""


def _wide(x: Tensor) -> Tensor:
    return x.to(at_least_fp32(x.dtype))


def cross_entropy(
    logits: Float[Tensor, "b classes"], targets: Tensor, label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Cross-entropy with ``(b,)`` classes, or with ``(b, classes)`` probabilities as from mixup.

    Raises:
        InputError: if the targets have another shape or type.
    """
    classes = targets.ndim == 1 and not targets.is_floating_point()
    if not classes and (targets.shape != logits.shape or not targets.is_floating_point()):
        raise InputError(
            f"targets must be {(logits.shape[0],)} integers or {tuple(logits.shape)} "
            f"probabilities, got {tuple(targets.shape)} of {targets.dtype}."
        )
    wide = _wide(logits)
    targets = targets if classes else targets.to(wide.dtype)
    return F.cross_entropy(wide, targets, label_smoothing=label_smoothing)


@checked
def distillation_kl(
    logits: Float[Tensor, "b classes"],
    teacher_logits: Float[Tensor, "b classes"],
    over: Literal["student", "teacher"] = "student",
) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence between the predictions of a model and its teacher.

    The probabilities of ``over`` weight the classes: ``"student"`` for KL(student‖teacher),
    ``"teacher"`` for KL(teacher‖student).

    Source: DynamicViT (Rao et al., NeurIPS 2021), section 3.4, KL(student‖teacher); the authors'
    code of IdleViT, KL(teacher‖student).

    Raises:
        ConfigError: for another ``over``.
        InputError: if the two have different numbers of classes.
    """
    if logits.shape != teacher_logits.shape:
        raise InputError(
            f"the teacher's logits must be {tuple(logits.shape)} like the model's, got "
            f"{tuple(teacher_logits.shape)}. Use a teacher with the same classes."
        )
    student = _wide(logits).log_softmax(dim=-1)
    teacher = _wide(teacher_logits.detach()).log_softmax(dim=-1)
    said, weighed_by = (teacher, student) if over == "student" else (student, teacher)
    return F.kl_div(said, weighed_by, reduction="batchmean", log_target=True)


def kept_token_mse(
    features: Float[Tensor, "b N c"],
    teacher_features: Float[Tensor, "b M c"],
    index: Int[Tensor, "b n"],
    mask: Float[Tensor, "b N"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error between the kept image tokens and the teacher's tokens at their patches.

    The mean is over all kept tokens of the batch and their channels. Tokens that stand for no
    single patch (index −1) are left out.

    Args:
        features: final tokens, prefix first.
        teacher_features: final tokens of the dense teacher: the same prefix, then the whole grid.
        index: positions of the image tokens on the grid.
        mask: 1 for kept tokens, prefix included; None if the others have been removed.

    Source: DynamicViT (Rao et al., NeurIPS 2021), section 3.4.

    Raises:
        InputError: if the teacher's tokens do not match.
    """
    p = features.shape[1] - index.shape[1]
    _check_teacher(features, teacher_features)
    patches = gather_tokens(_wide(teacher_features.detach())[:, p:], index.clamp_min(0))
    error = (_wide(features)[:, p:] - patches).square().mean(dim=-1)
    kept = (index >= 0).to(error.dtype)
    if mask is not None:
        kept = kept * mask.detach()[:, p:].to(error.dtype)
    return (error * kept).sum() / kept.sum().clamp_min(1)


def unit_feature_mse(
    features: Float[Tensor, "b N c"],
    teacher_features: Float[Tensor, "b N c"],
    mask: Float[Tensor, "b N"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error of features, each token scaled to length 1.

    With a mask, 0 for tokens to skip, each channel is scaled to unit norm over the tokens instead,
    as in the authors' code for LV-ViT.

    Source: IdleViT (Xu et al., AJCAI 2023, arXiv 2310.05654), feature distillation.

    Raises:
        InputError: if the teacher's features do not match.
    """
    _check_teacher(features, teacher_features)
    ours, theirs = features, teacher_features.detach()
    if mask is not None:
        seen = mask.detach().to(features.dtype)[:, None]
        ours, theirs = ours.transpose(1, 2) * seen, theirs.transpose(1, 2) * seen
    return F.mse_loss(unit_vectors(ours), unit_vectors(theirs))


def ratio_loss(
    kept_share: Float[Tensor, "b S"], target_share: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    """Mean squared difference between the kept and the target share, over images and stages.

    Source: DynamicViT (Rao et al., NeurIPS 2021), section 3.4.
    """
    wide = _wide(kept_share)
    return (wide - target_share.detach().to(wide.dtype)).square().mean()


def _check_teacher(features: Tensor, teacher_features: Tensor) -> None:
    b, n, c = features.shape
    given = tuple(teacher_features.shape)
    if len(given) != 3 or (given[0], given[2]) != (b, c) or given[1] < n:
        raise InputError(
            f"the teacher's features must be ({b}, at least {n}, {c}) to match the model's, got "
            f"{given}. Use the dense model as teacher, or omit teacher_features."
        )


# ---------------------------------------------------------------- combined


@checked
@dataclass(frozen=True)
class Criterion:
    """Cross-entropy plus weighted terms. A term of weight 0 is not computed.

    Args:
        label_smoothing: of the cross-entropy.
        distill: weight of `distillation_kl`. Needs ``teacher_logits``.
        over: its direction, ``"teacher"`` for KL(teacher‖student) or ``"student"`` for the reverse.
        kept_tokens: weight of `kept_token_mse` (DynamicViT). Needs ``teacher_features``.
        cls_feature: weight of `unit_feature_mse` on the CLS token (IdleViT); for LV-ViT, whose head
            reads all tokens, on those that were not idle in the last block. Needs
            ``teacher_features``.
        ratio: weight of `ratio_loss` (DynamicViT).
        shares: keep rate of each stage; None for the schedule's, ρ, ρ², ρ³.
        token_cut: weight of `token_cut` (IdleViT), the mean over blocks.
        second: weight of the cross-entropy of a second pass that removes fewer tokens (MCTF).
        consistency: weight of the mean squared error between the CLS features of both passes (the
            mean tokens without CLS), that of the second being constant (MCTF).
        confident: only images whose true class gets at least this probability count there.
        reference: follow the released code. IdleViT's counts only the 1st, 3rd, 5th … idle block
            and divides by the number of all of them. DynamicViT's trains LV-ViT's two classifiers
            separately: cross-entropy and `distillation_kl` on the CLS logits and, instead of
            `kept_token_mse`, the divergence of the kept tokens' logits. Its ``teacher_logits`` are
            the pair returned by LV-ViT's ``forward_head(features, return_tokens=True)``.
    """

    label_smoothing: Probability = 0.0
    distill: Magnitude = 0.0
    over: Literal["teacher", "student"] = "teacher"
    kept_tokens: Magnitude = 0.0
    cls_feature: Magnitude = 0.0
    ratio: Magnitude = 0.0
    shares: tuple[Probability, ...] | None = None
    token_cut: Magnitude = 0.0
    second: Magnitude = 0.0
    consistency: Magnitude = 0.0
    confident: Probability = 0.0
    reference: bool = False

    @property
    def looks_twice(self) -> bool:
        """Whether it has terms of a second pass."""
        return self.second > 0 or self.consistency > 0

    @property
    def reads_apart(self) -> bool:
        """Whether it needs the teacher's CLS and token logits, if a model has both."""
        return self.reference and self.kept_tokens > 0

    def __call__(
        self,
        logits: Tensor,
        targets: Tensor,
        aux: Mapping[str, Tensor],
        teacher_logits: Tensor | tuple[Tensor, Tensor] | None = None,
        teacher_features: Tensor | None = None,
        again: tuple[Tensor, Mapping[str, Tensor]] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its terms by name, unweighted and detached.

        A term whose teacher or second pass is not given is skipped.

        Args:
            logits: ``(b, classes)`` of ``forward_train``.
            targets: classes or probabilities; see `cross_entropy`.
            aux: the second result of ``forward_train``.
            teacher_logits: ``(b, classes)`` of the teacher, usually the dense model; see
                ``reference`` for LV-ViT's.
            teacher_features: ``(b, N, c)``, its ``forward_features``.
            again: the result of ``forward_train`` in a second pass.

        Raises:
            InputError: if shapes do not match, or ``aux`` lacks a value that a term needs.
        """
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"logits must be one tensor (b, classes), got {got}. A distilled model gives one "
                "after set_distilled_training(False)."
            )
        terms: dict[str, Callable[[], Tensor]] = {
            "ratio": lambda: self._ratio(aux),
            "token_cut": lambda: self._token_cut(aux),
        }
        if teacher_features is not None:
            dense = teacher_features
            terms["kept_tokens"] = lambda: kept_token_mse(
                _read(aux, "features"), dense, _read(aux, "index"), aux.get("mask")
            )
            terms["cls_feature"] = lambda: _cls_feature(aux, dense)
        if teacher_logits is not None:
            single = isinstance(teacher_logits, Tensor)
            pair: Any = (teacher_logits, None) if single else teacher_logits
            taught, of_tokens = pair
            if (of_tokens is not None) != (self.reads_apart and "token_logits" in aux):
                raise InputError(
                    "teacher_logits must be one tensor (b, classes) or, for the released losses of "
                    "LV-ViT, those of CLS and of the tokens: teacher.forward_head(features, "
                    f"return_tokens=True); got {'one' if single else 'a pair'}."
                )
            if of_tokens is not None:
                logits = aux["cls_logits"]
                terms["kept_tokens"] = lambda: self._token_kl(aux, of_tokens)
            terms["distill"] = lambda: distillation_kl(logits, taught, self.over)
        if again is not None:
            terms["second"] = lambda: cross_entropy(again[0], targets, self.label_smoothing)
            terms["consistency"] = lambda: self._consistency(logits, targets, aux, again[1])

        total = cross_entropy(logits, targets, self.label_smoothing)
        parts = {"ce": total.detach()}
        for name in _TERMS:
            if name in terms and (weight := getattr(self, name)):
                value = terms[name]()
                total = total + weight * value
                parts[name] = value.detach()
        return total, parts

    def _ratio(self, aux: Mapping[str, Tensor]) -> Tensor:
        kept = _read(aux, "kept_share")
        if self.shares is None:
            return ratio_loss(kept, _read(aux, "target_share"))
        if len(self.shares) != kept.shape[1]:
            raise ConfigError(
                f"expected {kept.shape[1]} shares, one per stage, got {len(self.shares)}."
            )
        return ratio_loss(kept, kept.new_tensor(self.shares))

    def _token_cut(self, aux: Mapping[str, Tensor]) -> Tensor:
        cut = _read(aux, "token_cut")
        return cut[:, ::2].sum(dim=1).mean() / cut.shape[1] if self.reference else cut.mean()

    def _consistency(
        self,
        logits: Tensor,
        targets: Tensor,
        aux: Mapping[str, Tensor],
        other: Mapping[str, Tensor],
    ) -> Tensor:
        classes = logits.shape[1]
        own = targets if targets.is_floating_point() else F.one_hot(targets, classes)
        likely = (_wide(logits.detach()).softmax(dim=-1) * (own > 1 / classes)).sum(dim=-1)
        sure = (likely >= self.confident).to(likely.dtype)
        error = (_wide(_class_feature(aux)) - _class_feature(other).detach()).square().mean(dim=-1)
        return (error * sure).sum() / sure.sum().clamp_min(1)

    def _token_kl(self, aux: Mapping[str, Tensor], teacher: Tensor) -> Tensor:
        ours = _read(aux, "token_logits")
        teacher = gather_tokens(teacher, _read(aux, "index").clamp_min(0))
        kept = torch.ones_like(ours[..., 0]) if "mask" not in aux else aux["mask"].detach()
        kept = kept[:, -ours.shape[1] :] > 0.5
        if not kept.any():
            return ours.new_zeros(())
        return distillation_kl(ours[kept], teacher[kept], self.over)


@checked
def make_criterion(name: str, /, *, reference: bool = False, **weights: Any) -> Criterion:
    """Create the criterion of a method; ``weights`` override its defaults.

    Args:
        name: ``"ce"``, ``"evit"``, ``"dynamicvit"``, ``"idlevit"`` or ``"mctf"``.
        reference: follow the released code where it differs from the papers: KL(teacher‖student) in
            DynamicViT; see also `Criterion`.
        weights: fields of `Criterion`.

    Raises:
        UnknownNameError: for an unknown name or weight.
        ConfigError: if a weight is out of range.
    """
    if name not in CRITERIA:
        raise UnknownNameError.of("criterion", name, CRITERIA)
    released = {"over": "teacher", "reference": True} if reference else {}
    return Criterion(**{**CRITERIA[name], **released, **weights})


def _cls_feature(aux: Mapping[str, Tensor], teacher: Tensor) -> Tensor:
    features = _read(aux, "features")
    if "token_logits" in aux and "idle_mask" in aux:
        return unit_feature_mse(features, teacher, aux["idle_mask"])
    return unit_feature_mse(features[:, :1], teacher[:, :1])


def _class_feature(aux: Mapping[str, Tensor]) -> Tensor:
    features = _read(aux, "features")
    has_prefix = features.shape[1] > _read(aux, "index").shape[1]
    return features[:, 0] if has_prefix else features.mean(dim=1)


def _read(aux: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in aux:
        raise InputError(
            f"a term of this criterion needs {key!r}, but aux has {', '.join(sorted(aux))}. Pass "
            "the result of forward_train in training mode, from a model whose method has that term "
            "and removes tokens, or set the term's weight to 0."
        )
    return aux[key]
