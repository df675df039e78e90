"""MCTF."""

from typing import Literal

from tokenred.core.values import Blocks, Count, Magnitude, Share
from tokenred.strategies.fusers.maximum import Maximum
from tokenred.strategies.schedules.until_few import UntilFew
from tokenred.strategies.selectors.matching.multi_criteria import MultiCriteria
from tokenred.strategies.strategy import Strategy, recipes

_WHERE: dict[str, Literal["inside_attention", "before_attention", "after_mlp"]] = {
    "approximate": "inside_attention",
    "precise": "before_attention",
    "off": "after_mlp",
}


@recipes.register("mctf")
def mctf(
    *,
    r: Count | Share = 16,
    layers: Blocks | None = None,
    one_step_ahead: Literal["approximate", "precise", "off"] = "approximate",
    tau_similarity: Magnitude = 1.0,
    tau_information: Magnitude = 20.0,
    tau_size: Magnitude = 40.0,
    bidirectional: bool = True,
    pooling: Literal["attention_size", "size", "mean", "max"] = "attention_size",
    proportional_attention: bool = True,
    reference: bool = False,
) -> Strategy:
    """Multi-criteria token fusion (MCTF, Lee et al., CVPR 2024).

    Args:
        r, layers: as for `UntilFew`, until 10 are left (0.35 in blocks 3, 6 and 9 is MCTF-Fast).
        one_step_ahead: judge the tokens that enter a block by its own attention; the map is then
            merged (``"approximate"``) or computed again (``"precise"``). ``"off"`` merges after the
            block.
        tau_similarity, tau_information, tau_size, bidirectional: as for `MultiCriteria`.
        pooling: as for `MultiCriteria`, or ``"max"`` for the largest entries.
        proportional_attention: add ``log s`` in the attention.
        reference: average pooling counts a merged token once, as in the authors' code.
    """
    weights = "mean" if pooling == "max" else pooling
    return Strategy(
        scorer=MultiCriteria(tau_similarity, tau_information, tau_size, bidirectional, weights),
        fuser=Maximum(magnitude=False) if pooling == "max" else "merge",
        schedule=UntilFew(r, layers),
        where=_WHERE[one_step_ahead],
        proportional_attention=proportional_attention,
        reference=reference,
    )
