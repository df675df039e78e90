"""What would train something else than what runs, and is refused before."""

from __future__ import annotations

from tokenred.attention import AttentionEdit
from tokenred.core.errors import ConfigError
from tokenred.core.plan import Strategy
from tokenred.strategies.edits import TopKeys

__all__ = ["check_mask_is_read"]


def check_mask_is_read(strategy: Strategy) -> None:
    """Refuse a selector that masks in training where no edit hides what is masked.

    All tokens stay in training then, and without the edit they would go on seeing those that
    inference removes: the loss would fall, and the gathered model would be another.

    Raises:
        ConfigError: with the edit that is missing.
    """
    if not strategy.selector.masks or any(_hides(edit) for edit in strategy.edits):
        return
    raise ConfigError(
        f"{strategy.scorer!r} marks tokens by a mask in training, and none of the strategy's edits "
        f"({', '.join(map(repr, strategy.edits)) or 'there are none'}) hides them from the others; "
        "what is trained would not be what runs. Add edits=('PolicyMask',), as the recipe "
        "dynamicvit has."
    )


def _hides(edit: AttentionEdit) -> bool:
    # A mask is there in training only, or needs a softmax of its own; TopKeys' is of its own map.
    own = type(edit).normalize is not AttentionEdit.normalize and not isinstance(edit, TopKeys)
    return edit.in_training_only or own
