"""The terms that losses are made of: each a mean over the batch, in fp32 or better."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.core.errors import ConfigError, InputError
from tokenred.core.tensors import at_least_fp32, gather_tokens, unit_vectors

__all__ = [
    "cross_entropy",
    "distillation_kl",
    "kept_token_mse",
    "ratio_loss",
    "unit_feature_mse",
]


def cross_entropy(
    logits: Float[Tensor, "b classes"], targets: Tensor, label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Cross-entropy with the true classes.

    Args:
        logits: of the model.
        targets: ``(b,)`` classes as integers, or ``(b, classes)`` probabilities, as mixup makes.
        label_smoothing: share of the target that is spread over all classes.

    Raises:
        InputError: for targets of another shape or type.
    """
    classes = targets.ndim == 1 and not targets.is_floating_point()
    if not classes and (targets.shape != logits.shape or not targets.is_floating_point()):
        raise InputError(
            f"targets must be {(logits.shape[0],)} integers or {tuple(logits.shape)} "
            f"probabilities, got {tuple(targets.shape)} of {targets.dtype}."
        )
    wide = _wide(logits)
    return F.cross_entropy(
        wide, targets if classes else targets.to(wide.dtype), label_smoothing=label_smoothing
    )


def distillation_kl(
    logits: Float[Tensor, "b classes"],
    teacher_logits: Float[Tensor, "b classes"],
    over: str = "student",
) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence between the predictions of a model and its teacher.

    The teacher is a constant.

    Args:
        logits: of the model.
        teacher_logits: of the teacher.
        over: whose probabilities weigh the classes: ``"student"`` for KL(student‖teacher),
            ``"teacher"`` for KL(teacher‖student).

    Source: DynamicViT (Rao et al., NeurIPS 2021), section 3.4, KL(student‖teacher); the authors'
    program of IdleViT, KL(teacher‖student).

    Raises:
        ConfigError: for another ``over``.
        InputError: where the two have not the same classes.
    """
    if logits.shape != teacher_logits.shape:
        raise InputError(
            f"the teacher's logits must be {tuple(logits.shape)} like the model's, got "
            f"{tuple(teacher_logits.shape)}. Take a teacher with the same classes."
        )
    student = _wide(logits).log_softmax(dim=-1)
    teacher = _wide(teacher_logits.detach()).log_softmax(dim=-1)
    if over == "student":
        return F.kl_div(teacher, student, reduction="batchmean", log_target=True)
    if over == "teacher":
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    raise ConfigError(f"distillation_kl: over must be 'student' or 'teacher', got {over!r}.")


def kept_token_mse(
    features: Float[Tensor, "b N c"],
    teacher_features: Float[Tensor, "b M c"],
    index: Int[Tensor, "b n"],
    mask: Float[Tensor, "b N"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error of the image tokens that are kept, each against its own patch.

    The mean is over all kept tokens of the batch and their channels. Teacher and mask are
    constants. Tokens that stand for no single patch (index −1) are left out.

    Args:
        features: final tokens, prefix first.
        teacher_features: those of the dense teacher: the same prefix, then the whole grid.
        index: positions of the image tokens on the grid.
        mask: 1 for tokens that are kept, prefix included; None where the others are gone.

    Source: DynamicViT (Rao et al., NeurIPS 2021), section 3.4.

    Raises:
        InputError: where the teacher's tokens do not match.
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
    """Mean squared error of features, each token scaled to length 1. The teacher is a constant.

    Args:
        features: of the model.
        teacher_features: of the teacher.
        mask: 0 for tokens to leave out; each channel then has length 1 over the tokens, as in the
            authors' program for LV-ViT.

    Source: IdleViT (Xu et al., AJCAI 2023, arXiv 2310.05654), feature distillation.

    Raises:
        InputError: where the teacher's features do not match.
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
    """How far each image is from keeping its share: the mean over images and stages of the square.

    Args:
        kept_share: the mean of the mask after each stage.
        target_share: what it should be, ``(b, S)`` or ``(S,)``.

    Source: DynamicViT (Rao et al., NeurIPS 2021), section 3.4.
    """
    wide = _wide(kept_share)
    return (wide - target_share.detach().to(wide.dtype)).square().mean()


def _wide(x: Tensor) -> Tensor:
    return x.to(at_least_fp32(x.dtype))


def _check_teacher(features: Tensor, teacher_features: Tensor) -> None:
    b, n, c = features.shape
    given = tuple(teacher_features.shape)
    if len(given) != 3 or (given[0], given[2]) != (b, c) or given[1] < n:
        raise InputError(
            f"the teacher's features must be ({b}, at least {n}, {c}) to match the model's, got "
            f"{given}. Take the dense model as teacher, or leave teacher_features out."
        )
