"""What a cell starts from: a recipe with arguments, a strategy, or the dense model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenred.core.errors import ConfigError, PartError, TokenredError
from tokenred.strategies.config import resolve
from tokenred.strategies.specs import Spec, parse_spec, read_arguments
from tokenred.strategies.strategy import Strategy, divide_arguments, from_config, recipes

__all__ = ["DENSE", "Base", "read_base"]

DENSE = "dense"


@dataclass(frozen=True)
class Base:
    """A recipe with arguments, or a strategy.

    Attributes:
        label: as one writes it.
        method: the family it belongs to.
        recipe: makes strategies; None where ``strategy`` is given.
        arguments: of the recipe.
        fields: of the strategy, which replace what the recipe chose.
        parameters: names that the recipe takes.
        strategy: in place of a recipe.
        share: of the dense model's GMACs; None for the schedule as it is.
    """

    label: str
    method: str
    recipe: Callable[..., Strategy] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    parameters: frozenset[str] = frozenset()
    strategy: Strategy | None = None
    share: float | None = None

    def make(self, arguments: Mapping[str, Any]) -> Strategy:
        """The strategy with some arguments set."""
        if self.recipe is None:
            assert self.strategy is not None
            return self.strategy
        try:
            made = self.recipe(**{**self.arguments, **arguments})
        except TokenredError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"recipe {self.method!r} does not take this: {error}.") from error
        if not isinstance(made, Strategy):
            raise PartError(f"recipe {self.method!r} must return a Strategy, got {made!r}.")
        return made.replace(**self.fields) if self.fields else made


def read_base(given: Any) -> Base:
    """A base from what a user writes.

    Args:
        given: a recipe's name, also with arguments and a share (``"gtp:P=4@0.65"``); ``"dense"``;
            a mapping such as ``{"recipe": "gtp", "P": 4}``; a `Strategy`, a `Spec`, or the path of
            a strategy's ``.toml``.

    Raises:
        TokenredError: as `tokenred.analysis.parse_spec` raises them.
    """
    if isinstance(given, str) and given.strip().casefold() == DENSE:
        return Base(DENSE, DENSE, strategy=Strategy.dense())
    if isinstance(given, Mapping):
        values = dict(given)
        strategy = from_config(values)  # refuses what is not there
        if "recipe" not in values:
            return _of_spec(parse_spec(strategy))
        name = str(values.pop("recipe"))
        shown = ",".join(f"{k}={v}" for k, v in values.items())
        return _of_recipe(f"{name}:{shown}" if shown else name, name, resolve(values), None)
    spec = parse_spec(given)
    if not isinstance(given, str | Path) or spec.method not in recipes:
        return _of_spec(spec)
    body = spec.label if spec.share is None else spec.label.rpartition("@")[0]
    if body.endswith(".toml") or str(given).partition("@")[0].endswith(".toml"):
        return _of_spec(spec)
    arguments = read_arguments(body.partition(":")[2], spec.label)
    return _of_recipe(body, spec.method, resolve(arguments), spec.share)


def _of_spec(spec: Spec) -> Base:
    label = spec.label if spec.share is None else spec.label.rpartition("@")[0]
    return Base(label, spec.method, strategy=spec.strategy, share=spec.share)


def _of_recipe(label: str, name: str, arguments: dict[str, Any], share: float | None) -> Base:
    own, fields = divide_arguments(name, arguments)
    return Base(
        label=label,
        method=name.casefold(),
        recipe=recipes[name].make,
        arguments=own,
        fields=fields,
        parameters=recipes[name].parameters,
        share=share,
    )
