"""Every recipe whose token counts are known before the images are."""

from collections.abc import Collection

import tokenred as tr


def static_recipes(without: Collection[str] = ()) -> dict[str, tr.Strategy]:
    """The recipes with their defaults, by name; new ones come along by themselves.

    Args:
        without: names of those that a test has in forms of its own.
    """
    made = {name: tr.strategy(name) for name in tr.list_strategies() if name not in without}
    return {name: strategy for name, strategy in made.items() if not _adaptive(strategy)}


def _adaptive(strategy: tr.Strategy, depth: int = 12) -> bool:
    return any(strategy.selector.adaptive(layer, depth) for layer in range(depth))
