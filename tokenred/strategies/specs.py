"""Strategies in command-line notation: ``gtp:P=4,alpha=0.2``, ``tome@0.65``."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tokenred.core.errors import ConfigError, PartError, TokenredError, shown
from tokenred.core.files import read_toml
from tokenred.core.notation import EXAMPLES, TRUTH, read_share, read_spec
from tokenred.core.part import Part
from tokenred.core.registry import KINDS
from tokenred.strategies.schedules.budget import Budget
from tokenred.strategies.strategy import Strategy, from_config

METHODS = ("gtp", "tome", "evit", "topk", "random")
_WORD = re.compile(r"[A-Za-z_]\w*(\.\w+)*")


@dataclass(frozen=True)
class Spec:
    """A strategy with a name to print.

    Attributes:
        label: what the user wrote.
        method: the family it belongs to: the recipe, or the label itself.
        strategy: the strategy.
        share: maximum share of the dense model's GMACs; None for the schedule as it is.
    """

    label: str
    method: str
    strategy: Strategy
    share: float | None = None

    def resolve(self, dense_gmacs: float) -> Strategy:
        """The strategy for a model of this cost."""
        if self.share is None:
            return self.strategy
        return at_budget(self.strategy, self.share * dense_gmacs)


StrategyLike = str | Path | Strategy | Spec
"""Accepted wherever a strategy is expected, see `parse_spec`."""


def at_budget(strategy: Strategy, gmacs: float) -> Strategy:
    """The same method, with as many tokens as fit a budget.

    Tokens are removed where the method's own schedule removes them, in the same proportions.

    Args:
        strategy: its schedule is scaled by a `Budget`.
        gmacs: of one image.
    """
    steps = (step.replace(schedule=Budget(gmacs, step.schedule)) for step in strategy.steps)
    return strategy.replace(steps=tuple(steps))


def same_budget(
    shares: float | Sequence[float] = (0.85, 0.65), methods: Sequence[StrategyLike] = METHODS
) -> list[Spec]:
    """Every method at the same costs, given as shares of the dense model's GMACs.

    Args:
        shares: one, or several, between 0 and 1, such as (0.85, 0.65).
        methods: strategies, as for `parse_spec`.

    Raises:
        ConfigError: for an invalid share, or a method that has its own.
    """
    specs = [parse_spec(method) for method in methods]
    shares = [shares] if isinstance(shares, int | float) else shares
    for spec in specs:
        if spec.share is not None:
            raise ConfigError(f"{spec.label!r} has its own budget; omit either it or the budgets.")
    return [
        replace(spec, label=f"{spec.label}@{share:g}", share=read_share(spec.label, share))
        for spec in specs
        for share in shares
    ]


def parse_spec(text: StrategyLike) -> Spec:
    """Parse a strategy.

    ``NAME[:KEY=VALUE,…][@SHARE]``: a recipe, its arguments, and the share of the dense model's
    GMACs that it may cost. Values are Python literals; ``true``, ``false``, ``none`` and bare words
    work as well, and ``Name(key=value)`` creates a part: ``gtp:P=4,scorer=DiagAttn``,
    ``topk:scorer=Random(seed=1)``. Also the path of a strategy's ``.toml``, with or without
    ``@SHARE``.

    Raises:
        ConfigError: for text that cannot be read, or a value outside its range.
        UnknownNameError: for an unknown recipe, argument or part.
    """
    if isinstance(text, Spec):
        return text
    if isinstance(text, Strategy):
        label = f"{type(text.scorer).__name__}+{type(text.fuser).__name__}"
        return Spec(label, label, text)
    if not isinstance(text, str | Path):
        hint = ""
        if isinstance(text, Part) or (isinstance(text, type) and issubclass(text, Part)):
            hint = " A part goes into a strategy: tokenred.strategy('gtp', scorer=…)."
        elif isinstance(getattr(text, "strategy", None), Strategy):
            hint = " Pass the strategy of that model: model.strategy."
        raise PartError(
            f"expected a Strategy, or text such as {EXAMPLES}; got {shown(text)}.{hint}"
        )
    written = str(text).strip()
    name, arguments, share = read_spec(written)
    if arguments is not None:
        return Spec(written, name.casefold(), from_config({"recipe": name} | arguments), share)
    stem = Path(name).stem
    label = stem if share is None else f"{stem}@{share:g}"
    table = read_toml(Path(name))
    try:
        return Spec(label, stem, from_config(table), share)
    except TokenredError as error:
        raise type(error)(f"{name}: {error}") from error


def write_spec(name: str, arguments: Mapping[str, Any]) -> str:
    """What `parse_spec` reads as a recipe with these arguments: ``gtp:P=4,scorer=DiagAttn``.

    A part without a registered name is written like one with it, under the name of its class.
    """
    told = ",".join(f"{key}={write_value(value)}" for key, value in arguments.items())
    return f"{name}:{told}" if told else name


def write_value(value: Any) -> str:
    """The value of an argument; of a part, only the parameters that differ from their defaults."""
    if isinstance(value, Part):
        kinds = [kind for kind in KINDS.values() if isinstance(value, kind.base)]
        name = next(filter(None, (kind.name_of(value) for kind in kinds)), type(value).__name__)
        plain = [(f.name, getattr(value, f.name), f.default) for f in fields(value)]  # type: ignore[arg-type]
        told = ",".join(f"{key}={write_value(v)}" for key, v, default in plain if v != default)
        return f"{name}({told})" if told else name
    if isinstance(value, list | tuple):
        told = ",".join(map(write_value, value))
        if isinstance(value, list) or any(isinstance(v, Part) for v in value):
            return f"[{told}]"
        return f"({told},)" if len(value) == 1 else f"({told})"
    if isinstance(value, bool):
        return str(value).lower()
    bare = isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in TRUTH
    if bare or value is None:
        return str(value)
    if isinstance(value, str | int | float):
        return repr(value).removesuffix(".0")  # a parameter that is a float reads 2 as 2.0
    return shown(value)
