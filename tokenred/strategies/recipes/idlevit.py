"""IdleViT."""

from __future__ import annotations

from collections.abc import Sequence

from tokenred.core.plan import Strategy, recipes
from tokenred.strategies.routes import Idle

__all__ = ["idlevit"]


@recipes.register("idlevit")
def idlevit(
    *,
    keep_ratios: float | Sequence[float] = 0.7,
    layers: Sequence[int] | None = None,
    cut: str | None = "both",
    reference: bool = False,
) -> Strategy:
    """Tokens idle and come back, none is lost (IdleViT, Xu et al., AJCAI 2023, arXiv 2310.05654).

    It asks for fine-tuning (`tokenred.training.losses`, "idlevit"), in which all tokens attend
    behind a mask.

    Args:
        keep_ratios: share ρ of all tokens that pass a block; one for ρ, ρ², ρ³ in three stages, or
            one for each of `layers`.
        layers: the blocks; None for the paper's (4-11 of 12), scaled with the depth.
        cut: token cut loss in training, ``"both"``, ``"inter"``, ``"intra"``, or None for none.
        reference: nothing differs; accepted so that all recipes take it.
    """
    route = Idle(
        keep_ratios if isinstance(keep_ratios, int | float) else tuple(keep_ratios),
        None if layers is None else tuple(layers),
        "none" if cut is None else cut,
    )
    # Nothing is removed, so nothing is scored.
    return Strategy(scorer="Random", schedule=0, route=route)
