"""What would train something else than what runs, and is refused before."""

from __future__ import annotations

from tokenred.attention import ScoreMod
from tokenred.core.errors import ConfigError
from tokenred.strategies.score_mods import TopKeys
from tokenred.strategies.strategy import Strategy

__all__ = ["check_mask_is_read"]


def check_mask_is_read(strategy: Strategy) -> None:
    """Refuse a selector that masks in training where no score mod hides what is masked.

    All tokens stay in training then, and without the score mod they would go on seeing those that
    inference removes: the loss would fall, and the gathered model would be another.

    Raises:
        ConfigError: with the score mod that is missing.
    """
    if not strategy.selector.masks or any(_hides(mod) for mod in strategy.score_mods):
        return
    raise ConfigError(
        f"{strategy.scorer!r} marks tokens by a mask in training, and none of the strategy's "
        f"score mods ({', '.join(map(repr, strategy.score_mods)) or 'there are none'}) hides them "
        "from the others; what is trained would not be what runs. "
        "Add score_mods=('PolicyMask',), as the recipe dynamicvit has."
    )


def _hides(mod: ScoreMod) -> bool:
    # A mask is there in training only, or needs a softmax of its own; TopKeys' is of its own map.
    own = type(mod).normalize is not ScoreMod.normalize and not isinstance(mod, TopKeys)
    return mod.in_training_only or own
