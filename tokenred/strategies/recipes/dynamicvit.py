"""DynamicViT."""

from __future__ import annotations

from collections.abc import Sequence

from tokenred.core.plan import Strategy, recipes
from tokenred.strategies.edits.policy_mask import PolicyMask
from tokenred.strategies.schedules import KeepRatio
from tokenred.strategies.selectors.predictor import Predictor

__all__ = ["dynamicvit"]


@recipes.register("dynamicvit")
def dynamicvit(
    *,
    keep_rate: float | Sequence[float] = 0.7,
    layers: Sequence[int] | None = None,
    temperature: float = 1.0,
    epsilon: float = 1e-6,
    gradient_limit: float | None = None,
    reference: bool = False,
) -> Strategy:
    """Learned networks decide which tokens stay (DynamicViT, Rao et al., NeurIPS 2021).

    The networks are random until they are trained (`tokenred.training.losses`, "dynamicvit"), and
    count as part of the model.

    Args:
        keep_rate: share ρ of all tokens kept; one for ρ, ρ², ρ³ …, or one for each of `layers`.
        layers: blocks before which tokens go, each with a network of its own; None for the
            quarters of the depth (3, 6, 9 of 12).
        temperature: τ of the Gumbel-softmax in training.
        epsilon: ε of the masked attention in training.
        gradient_limit: ours, for small models (0.02): see `Predictor`. None as in the paper.
        reference: nothing differs; accepted so that all recipes take it.
    """
    chosen = None if layers is None else tuple(layers)
    return Strategy(
        scorer=Predictor(chosen, temperature, gradient_limit),
        schedule=KeepRatio(
            keep_rate if isinstance(keep_rate, int | float) else tuple(keep_rate),
            chosen,
            rounding="floor",
            of="start",
        ),
        where="before_block",
        edits=(PolicyMask(epsilon),),
    )
