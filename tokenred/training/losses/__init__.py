"""Losses for fine-tuning: the terms, and what each method makes of them.

::

    criterion = make_criterion("dynamicvit")
    logits, aux = reduced.forward_train(images)
    loss, parts = criterion(logits, targets, aux, teacher_logits, teacher_features)
"""

from tokenred.strategies.routers.idle import token_cut
from tokenred.training.losses.criterion import CRITERIA, Criterion, make_criterion
from tokenred.training.losses.terms import (
    cross_entropy,
    distillation_kl,
    kept_token_mse,
    ratio_loss,
    unit_feature_mse,
)

__all__ = [
    "CRITERIA",
    "Criterion",
    "cross_entropy",
    "distillation_kl",
    "kept_token_mse",
    "make_criterion",
    "ratio_loss",
    "token_cut",
    "unit_feature_mse",
]
