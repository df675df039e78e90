"""DynamicViT."""

from tokenred.core.values import Blocks, Magnitude, Positive, Share, Shares
from tokenred.strategies.schedules.keep_ratio import KeepRatio
from tokenred.strategies.score_mods.policy_mask import PolicyMask
from tokenred.strategies.selectors.predictor import Predictor
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("dynamicvit")
def dynamicvit(
    *,
    keep_rate: Share | Shares = 0.7,
    layers: Blocks | None = None,
    temperature: Positive = 1.0,
    epsilon: Magnitude = 1e-6,
    gradient_limit: Positive | None = None,
) -> Strategy:
    """Learned networks decide which tokens are kept (DynamicViT, Rao et al., NeurIPS 2021).

    The networks are random until they are trained (`tokenred.training.losses`, "dynamicvit"), and
    count as part of the model.

    Args:
        keep_rate: keep rate ρ relative to all tokens; one for ρ, ρ², ρ³ …, or one for each of
            `layers`.
        layers, temperature, gradient_limit: as for `Predictor`, which acts before a block;
            0.02 is a limit for small models.
        epsilon: as for `PolicyMask`.
    """
    return Strategy(
        scorer=Predictor(layers, temperature, gradient_limit),
        schedule=KeepRatio(keep_rate, layers, rounding="floor", of="start"),
        where="before_block",
        score_mods=(PolicyMask(epsilon),),
    )
