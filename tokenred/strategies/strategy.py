"""A strategy: the parts of a method and how they are combined."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenred.attention.score_mods import ScoreMod
from tokenred.attention.score_mods import score_mods as known_mods
from tokenred.core.errors import (
    ConfigError,
    PartError,
    TokenredError,
    UnknownNameError,
    UnusedWarning,
    shown,
)
from tokenred.core.info import ModelInfo
from tokenred.core.part import Part
from tokenred.core.registry import KINDS, Registry
from tokenred.core.values import Count, Share, checked, parameters_of, read
from tokenred.graphs.base import GraphBuilder, graph_builders
from tokenred.graphs.none import NoGraph
from tokenred.strategies.base import (
    Embedding,
    Fuser,
    Router,
    Scorer,
    Selector,
    embeddings,
    fusers,
    names_selector,
    routers,
    scorers,
    selectors,
)
from tokenred.strategies.config import fingerprint, read_toml, resolve, write_toml
from tokenred.strategies.schedule import Schedule, schedules
from tokenred.strategies.schedules.constant import Constant
from tokenred.strategies.selectors.top_score import TopScore

__all__ = [
    "Strategy", "divide_arguments", "from_config", "list_strategies", "recipes",
    "register_strategy", "strategy",
]  # fmt: skip


@checked
@dataclass(frozen=True, init=False)
class Strategy:
    """A token-reduction method as a value: comparable, hashable, printed without defaults.

    Args:
        scorer: which tokens matter: a scorer, a selector, or the name of one.
        graph: builder of the token graph, or its name.
        fuser: what happens to removed tokens, or its name.
        schedule: how many tokens each block removes; an integer P means ``Constant(P)``.
        theta: share θ in (0, 1] of attention entries kept after the softmax.
        proportional_attention: add ``log s`` to the attention logits of each key.
        where: reduce ``"after_attention"``, before the MLP; ``"before_block"``, where parts that
            read attention read that of the block before; ``"inside_attention"``, where the map is
            merged before it is applied; ``"before_attention"``, where the remaining tokens attend
            again; or ``"after_mlp"``.
        router: which tokens pass a block, or its name.
        score_mods: further changes of the attention logits.
        reference: follow the authors' code: θ keeps one entry more, and an average over tokens
            weights merged ones like any other.
        embedding: a term added to the tokens before the first block, or its name.
        threshold: how θ's threshold is found: ``"exact"``, or ``"fast"``, whose share may differ
            from θ by up to 0.01 (see ``trace.theta_error``).

    Raises:
        UnknownNameError: for an unregistered name.
        ConfigError: for a value outside its range.
        PartError: for an object of another kind.
    """

    scorer: Scorer | Selector
    graph: GraphBuilder
    fuser: Fuser
    schedule: Schedule
    theta: float
    proportional_attention: bool
    where: str
    router: Router
    score_mods: tuple[ScoreMod, ...]
    reference: bool
    threshold: str
    embedding: Embedding

    if TYPE_CHECKING:
        _selector: Selector

    def __init__(
        self,
        scorer: Scorer | Selector | str,
        graph: GraphBuilder | str = "none",
        fuser: Fuser | str = "prune",
        schedule: Schedule | Count | str = 0,
        theta: Share = 1.0,
        proportional_attention: bool = False,
        where: Literal[
            "before_block", "before_attention", "inside_attention", "after_attention", "after_mlp"
        ] = "after_attention",
        router: Router | str = "take_all",
        score_mods: Sequence[ScoreMod | str] = (),
        reference: bool = False,
        threshold: Literal["exact", "fast"] = "exact",
        embedding: Embedding | str = "plain",
    ) -> None:
        if isinstance(schedule, int):
            schedule = Constant(schedule)
        fields: dict[str, Any] = {
            "scorer": _scorer_or_selector(scorer),
            "graph": graph_builders.create(graph),
            "fuser": fusers.create(fuser),
            "schedule": schedules.create(schedule),
            "theta": theta,
            "proportional_attention": proportional_attention,
            "where": where,
            "router": routers.create(router),
            "score_mods": tuple(known_mods.create(mod) for mod in score_mods),
            "reference": reference,
            "threshold": threshold,
            "embedding": embeddings.create(embedding),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        # Cached: every forward needs it.
        chosen = self.scorer if isinstance(self.scorer, Selector) else TopScore(self.scorer)
        object.__setattr__(self, "_selector", chosen)

    @classmethod
    def dense(cls) -> Strategy:
        """The strategy that removes nothing: the unmodified model."""
        return cls("Random")  # never called, since nothing is removed

    def __repr__(self) -> str:
        plain = Strategy(self.scorer)
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        changed = {n: v for n, v in fields.items() if n == "scorer" or v != getattr(plain, n)}
        return f"Strategy({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    @property
    def selector(self) -> Selector:
        """The selector: the scorer itself if it is one, otherwise `TopScore` of it."""
        return self._selector

    @property
    def parts(self) -> dict[str, Part]:
        """All parts by field name."""
        named: dict[str, Part] = {
            "scorer": self.scorer,
            "graph": self.graph,
            "fuser": self.fuser,
            "schedule": self.schedule,
            "router": self.router,
            "embedding": self.embedding,
        }
        return named | {f"score_mods.{i}": mod for i, mod in enumerate(self.score_mods)}

    @property
    def unused(self) -> tuple[str, ...]:
        """What changes nothing in this combination, in words: ``"graph: not read by Prune"``."""
        fuser, kind = self.fuser, type(self.fuser).__name__
        if type(self.graph) is NoGraph and fuser.uses_graph:
            return (f"fuser: without a graph {kind} moves nothing",)
        if type(self.graph) is not NoGraph and not fuser.uses_graph:
            return (f"graph: not read by {kind}",)
        return ("fuser: alpha=0 moves nothing",) if getattr(fuser, "alpha", 1) == 0 else ()

    def check(self, info: ModelInfo) -> None:
        """Refuse a model that some part does not support.

        Raises:
            ConfigError: with what the part needs and what the model has.
        """
        for part in self.parts.values():
            part.check(info)

    def replace(self, **changes: Any) -> Strategy:
        """A copy with some fields changed; names are looked up as in the constructor."""
        known = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise UnknownNameError.of("field of a strategy", name, known)
        return dataclasses.replace(self, **changes)

    def fingerprint(self) -> str:
        """16 hex digits over everything that determines the result: values, and the code of parts.

        Raises:
            PartError: if one of your parts reads something that cannot identify a result, such as a
                random generator; the message says where.
        """
        return fingerprint(self)

    def to_toml(self, path: str | Path | None = None, *, overwrite: bool = False) -> str:
        """The strategy as TOML text, written to ``path`` if given.

        Raises:
            ConfigError: if a part has no registered name.
            OutputExistsError: if the file exists.
        """
        return write_toml(self, path, overwrite=overwrite)

    @classmethod
    def from_toml(cls, source: str | Path) -> Strategy:
        """A strategy from TOML text or from the path of a file.

        Raises:
            ConfigError: for unknown keys, or a file that is not TOML.
        """
        return from_config(read_toml(source))


recipes: Registry[Strategy] = KINDS["strategy"]
list_strategies, register_strategy = recipes.names, recipes.register


def strategy(name: str, /, **arguments: Any) -> Strategy:
    """A published method by name, with its published defaults.

    Args:
        name: one of ``tokenred.list_strategies()``, in any case.
        arguments: arguments of the recipe (see ``tokenred list``), or any field of `Strategy`,
            which then replaces the recipe's choice.

    Raises:
        UnknownNameError: for an unknown name or argument.
        ConfigError: for a value outside its range.

    Warns:
        UnusedWarning: for an argument that no part reads, such as M with ``graph="none"``.
    """
    own, fields = divide_arguments(name, arguments)
    made = recipes[name].make(**own)
    if not isinstance(made, Strategy):
        raise PartError(f"recipe {name!r} must return a Strategy, got {shown(made)}.")
    for key, value in own.items():
        # `reference` may have no effect: paper and code agree.
        if key != "reference" and _unread(recipes[name].make, own, key, made):
            warnings.warn(
                f"{name}: {key}={value!r} changes nothing, since no part of it reads {key}. "
                "Leave it out, or choose parts that do.",
                UnusedWarning,
                stacklevel=2,
            )
    return made.replace(**fields) if fields else made


def _unread(make: Any, own: Mapping[str, Any], key: str, made: Strategy) -> bool:
    """Whether an argument of a recipe has no effect, although it is not the default."""
    default = inspect.signature(make).parameters[key].default
    value = read(parameters_of(make)[key], own[key], key)  # "no" is False
    if default is inspect.Parameter.empty or value == default:
        return False
    try:
        return repr(make(**{**own, key: default})) == repr(made)
    except TokenredError:  # without it the others do not fit
        return False


def divide_arguments(
    name: str, arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split arguments into those of the recipe and fields of the strategy it makes.

    ``reference`` is dropped if the recipe does not take it: paper and code agree.

    Raises:
        UnknownNameError: for any other.
        ConfigError: for a ``reference`` that is neither True nor False.
    """
    own = recipes[name].parameters
    fields = {f.name for f in dataclasses.fields(Strategy)}
    rest = {k: v for k, v in arguments.items() if k not in own}
    for key in rest:
        if key not in fields:
            raise UnknownNameError.of(f"argument of strategy {name!r}", key, {*own, *fields})
    if "reference" in rest:
        read(bool, rest.pop("reference"), f"{name}: reference")
    return {k: v for k, v in arguments.items() if k in own}, rest


def from_config(config: dict[str, Any]) -> Strategy:
    """A strategy from the result of ``to_config``, or from ``{"recipe": name, **arguments}``.

    Raises:
        ConfigError: if neither a scorer nor a recipe is named.
        UnknownNameError: for unknown keys, parts, parameters or recipes.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"expected a strategy as a table of its fields, got {shown(config)}.")
    values = dict(config)
    if "recipe" in values:
        name = read(str, values.pop("recipe"), "recipe")
        return strategy(name, **resolve(values))
    known = [f.name for f in dataclasses.fields(Strategy)]
    if unknown := sorted(set(values) - set(known)):
        raise UnknownNameError.of("key of a strategy file", unknown[0], [*known, "recipe"])
    if "scorer" not in values:
        raise ConfigError(
            'a strategy file needs a [scorer] table or a recipe = "name" line; it has '
            f"{', '.join(sorted(values)) or 'nothing'}. Recipes: {', '.join(recipes.names())}."
        )
    return Strategy(**resolve(values))


def _scorer_or_selector(part: Scorer | Selector | str) -> Scorer | Selector:
    if isinstance(part, Selector) or (isinstance(part, str) and names_selector(part)):
        chosen = selectors.create(part)
        # A selector that only wraps a scorer is that scorer: one spelling for one method.
        return chosen.scorer if type(chosen) is TopScore else chosen
    return scorers.create(part)
