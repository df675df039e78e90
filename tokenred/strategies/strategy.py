"""A strategy: the parts of a method and how they are combined."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from tokenred.attention.score_mods import ScoreMod
from tokenred.attention.score_mods import score_mods as known_mods
from tokenred.core.errors import ConfigError, PartError, UnknownNameError, shown
from tokenred.core.files import read_toml
from tokenred.core.info import ModelInfo
from tokenred.core.notation import AMOUNTS, check_amount, check_table
from tokenred.core.part import Part, check_blocks
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
    routers,
    selectors,
)
from tokenred.strategies.config import fingerprint, resolve, write_toml
from tokenred.strategies.routers.take_all import TakeAll
from tokenred.strategies.schedule import Schedule
from tokenred.strategies.schedules.budget import Budget
from tokenred.strategies.step import Place, Step


@checked
@dataclass(frozen=True, init=False)
class Strategy:
    """A token-reduction method as a value: comparable, hashable, printed without defaults.

    Most methods reduce once in a block, and their `Step` is given by ``scorer``, ``fuser``,
    ``schedule`` and ``where``; others have several ``steps``. In a block, steps run in the order of
    their places; steps at the same place run one after another.

    Args:
        scorer: which tokens matter: a scorer, a selector, or the name of one.
        graph: builder of the token graph, or its name.
        fuser: what happens to removed tokens, or its name.
        schedule: how many tokens each block removes; an integer P means ``Constant(P)``.
        theta: share θ in (0, 1] of attention entries kept after the softmax.
        proportional_attention: add ``log s`` to the attention logits of each key.
        where: reduce ``"after_attention"``, before the MLP; ``"before_block"``, with the attention
            of the previous block; ``"inside_attention"``, where the map is merged before it is
            applied; ``"before_attention"``, where the remaining tokens attend again; or
            ``"after_mlp"``.
        router: which tokens pass a block, or its name.
        score_mods: further changes of the attention logits.
        reference: follow the authors' code: θ keeps one entry more, and an average over tokens
            weights merged ones like any other.
        embedding: a term added to the tokens before the first block, or its name.
        threshold: how θ's threshold is found: ``"exact"``, or ``"fast"``, whose share may differ
            from θ by up to 0.01 (see ``trace.theta_error``).
        steps: the reductions, instead of ``scorer``, ``fuser``, ``schedule`` and ``where``.
        selector: a selector or its name, which can be given as ``scorer`` too.

    Raises:
        UnknownNameError: for an unregistered name.
        ConfigError: for a value outside its range, and where neither a scorer nor steps are given.
        PartError: for an object of another kind.
    """

    steps: tuple[Step, ...]
    graph: GraphBuilder
    theta: float
    proportional_attention: bool
    router: Router
    score_mods: tuple[ScoreMod, ...]
    reference: bool
    threshold: str
    embedding: Embedding
    # Arguments of its recipe that the others replace; of an instance, ignored by equality.
    unread: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        scorer: Scorer | Selector | str | None = None,
        *,
        graph: GraphBuilder | str = "none",
        fuser: Fuser | str = "prune",
        schedule: Schedule | Count | str = 0,
        theta: Share = 1.0,
        proportional_attention: bool = False,
        where: Place = "after_attention",
        router: Router | str = "take_all",
        score_mods: Sequence[ScoreMod | str] = (),
        reference: bool = False,
        threshold: Literal["exact", "fast"] = "exact",
        embedding: Embedding | str = "plain",
        steps: Sequence[Step] | None = None,
        selector: Selector | str | None = None,
    ) -> None:
        if selector is not None and scorer is None:
            scorer = selectors.create(selector)
        elif selector is not None:
            raise ConfigError("Strategy: expected a scorer or a selector, got both.")
        plain = (None, "prune", 0, "after_attention")
        given = zip((scorer, fuser, schedule, where), plain, strict=True)
        own = any(value is not default for value, default in given)
        if scorer is None if steps is None else own:
            raise ConfigError(
                "Strategy: expected a scorer, with a fuser and a schedule, or steps=(Step(…), …) "
                f"which have their own; got {'neither' if steps is None else 'both'}."
            )
        if steps is not None and not (steps and all(isinstance(step, Step) for step in steps)):
            raise PartError(f"Strategy: expected steps=(Step(…), …), got {shown(steps)}.")
        if steps is None and scorer is not None:
            steps = (Step(scorer, fuser=fuser, schedule=schedule, where=where),)
        fields: dict[str, Any] = {
            "steps": tuple(steps or ()),
            "graph": graph_builders.create(graph),
            "theta": theta,
            "proportional_attention": proportional_attention,
            "router": routers.create(router),
            "score_mods": tuple(known_mods.create(mod) for mod in score_mods),
            "reference": reference,
            "threshold": threshold,
            "embedding": embeddings.create(embedding),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def dense(cls) -> Strategy:
        """The strategy that removes nothing: the unmodified model."""
        return cls("Random")  # never called, since nothing is removed

    def __repr__(self) -> str:
        plain = Strategy(self.scorer).arguments()
        changed = {n: v for n, v in self.arguments().items() if n == "scorer" or v != plain.get(n)}
        return f"Strategy({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    @property
    def scorer(self) -> Scorer | Selector:
        """The scorer, or selector, of the first step."""
        return self.steps[0].scorer

    @property
    def selector(self) -> Selector:
        """The selector of the first step: the scorer itself if it is one, else `TopScore` of it."""
        return self.steps[0].selector

    @property
    def fuser(self) -> Fuser:
        """The fuser of the first step."""
        return self.steps[0].fuser

    @property
    def schedule(self) -> Schedule:
        """The schedule of the first step."""
        return self.steps[0].schedule

    @property
    def where(self) -> str:
        """Where the first step reduces."""
        return self.steps[0].where

    @property
    def single(self) -> bool:
        """Whether there is one step, in all blocks that its schedule names."""
        return len(self.steps) == 1 and self.steps[0].layers is None

    def arguments(self) -> dict[str, Any]:
        """What `Strategy` takes, by name, to make this one."""
        held = {name: getattr(self, name) for name in FIELDS}
        rest = ("steps",) if self.single else STEP_FIELDS
        return {name: value for name, value in held.items() if name not in rest}

    @property
    def parts(self) -> dict[str, Part]:
        """All parts by field name; those of a further step as ``steps.1.fuser``."""
        named = dict(self.steps[0].parts)
        for i, step in enumerate(self.steps[1:], 1):
            named |= {f"steps.{i}.{name}": part for name, part in step.parts.items()}
        return named | self.common_parts

    @property
    def common_parts(self) -> dict[str, Part]:
        """The parts that belong to no step."""
        mods = {f"score_mods.{i}": mod for i, mod in enumerate(self.score_mods)}
        return {"graph": self.graph, "router": self.router, "embedding": self.embedding, **mods}

    @property
    def unused(self) -> tuple[str, ...]:
        """What changes nothing in this combination, in words: ``"graph: not read by Prune"``."""
        fusers = {type(step.fuser).__name__: step.fuser for step in self.steps}
        without = type(self.graph) is NoGraph
        found = [
            f"fuser: without a graph {name} moves nothing"
            for name, fuser in fusers.items()
            if without and fuser.uses_graph
        ]
        reads = self.router.uses_graph or any(step.uses_graph for step in self.steps)
        if not without and not reads:
            found.append(f"graph: not read by {' and '.join(fusers)}")
        if not found and any(getattr(step.fuser, "alpha", 1) == 0 for step in self.steps):
            found.append("fuser: alpha=0 moves nothing")
        budgets = (step.schedule for step in self.steps if isinstance(step.schedule, Budget))
        replaced = dict.fromkeys(budget.written for budget in budgets if budget.written)
        found += [f"schedule: the budget replaces {written}" for written in replaced]
        still = type(self.router) is TakeAll and not any(step.removes for step in self.steps)
        if still and self.steps != Strategy.dense().steps:
            found.append("schedule: removes no tokens")
        return (*found, *self.unread)

    def check(self, info: ModelInfo) -> None:
        """Refuse a model that some part does not support.

        Raises:
            ConfigError: with what the part needs and what the model has.
        """
        for step in self.steps:
            check_blocks(step, step.layers, info.depth)
        for part in self.parts.values():
            part.check(info)

    def replace(self, **changes: Any) -> Strategy:
        """A copy with some fields changed; names are looked up as in the constructor.

        Raises:
            UnknownNameError: for a field that a strategy does not have.
            ConfigError: for a field of one step where there are several.
        """
        if "selector" in changes:
            changes.setdefault("scorer", selectors.create(changes.pop("selector")))
        for name in changes:
            if name not in FIELDS and (ways := self._ways_to(name, shown(changes[name]))):
                raise UnknownNameError(
                    f"a strategy has no field {name!r}, which belongs to recipes or parts. Write "
                    f"{', or '.join(ways)}."
                )
            if name not in FIELDS:
                raise UnknownNameError.of("field", name, FIELDS, "a strategy")
        own = {name: changes.pop(name) for name in STEP_FIELDS if name in changes}
        if own and (len(self.steps) > 1 or "steps" in changes):
            raise ConfigError(
                f"{next(iter(own))}= is of one step, and the strategy has {len(self.steps)}. "
                "Replace them all: steps=(Step(…), …), or strategy.steps[0].replace(…)."
            )
        if own:
            changes["steps"] = (self.steps[0].replace(**own),)
        made = dataclasses.replace(self, **changes)
        object.__setattr__(made, "unread", self.unread)
        return made

    def _ways_to(self, name: str, value: str) -> list[str]:
        """How to set what is no field, but an argument of a recipe or a parameter of a part."""
        ways = [f"tokenred.strategy(name, {name}={value})"]
        ways = ways if any(name in recipe.parameters for recipe in recipes) else []
        if name == "P":
            return [*ways, f"schedule={value}"]
        return ways + [
            f"{at}=mine.{at}.replace({name}={value}), where mine is the strategy"
            for at, part in self.parts.items()
            if at in FIELDS and name in getattr(part, "__dataclass_fields__", ())
        ]

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


STEP_FIELDS = ("scorer", "fuser", "schedule", "where")
FIELDS = tuple(name for name in parameters_of(Strategy) if name != "selector")
"""What `Strategy` takes, by name."""

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
    """
    line = re.fullmatch("([^:@]+)(?::(.+?))?(?:@(.+))?", name) if isinstance(name, str) else None
    if line and line[1] != name and line[1] in recipes:
        given = f", {line[2]}" if line[2] else ""
        raise UnknownNameError(
            f"{name!r} is a recipe with arguments or a budget in one line, which "
            f"tokenred.wrap(model, {name!r}) takes; tokenred.strategy takes them apart: "
            f"tokenred.strategy({line[1]!r}{given})."
        )
    own = recipes[name].parameters
    rest = {k: v for k, v in arguments.items() if k not in own}
    for key in rest:
        check_amount(name, key, own)
        if key not in (*FIELDS, "selector"):
            told = UnknownNameError.of("argument", key, {*own, *FIELDS}, f"strategy {name!r}")
            raise UnknownNameError(f"{told}{_of_a_part(key, arguments)}")
    if "reference" in rest:
        # Dropped if the recipe does not take it: paper and code agree.
        read(bool, rest.pop("reference"), f"{name}: reference")
    taken = {k: v for k, v in arguments.items() if k in own}
    made = recipes[name].make(**taken)
    if not isinstance(made, Strategy):
        raise PartError(f"recipe {name!r} must return a Strategy, got {shown(made)}.")
    amounts = [f"{k}={arguments[k]}" for k in AMOUNTS if k in own and arguments.get(k) is not None]
    if amounts:
        marked = (
            step.replace(schedule=step.schedule.written_as(amounts[0])) for step in made.steps
        )
        made = made.replace(steps=tuple(marked))
    if rest:
        made = made.replace(**rest)
    if len(arguments) > 1:
        asked = (key for key in taken if key != "reference")  # that only chooses a form
        unread = (k for k in asked if _replaced(k, made, recipes[name].make, taken, rest))
        notes = tuple(f"{k}={shown(taken[k])}: replaced by the other arguments" for k in unread)
        object.__setattr__(made, "unread", notes)
    return made


def _of_a_part(key: str, arguments: Mapping[str, Any]) -> str:
    """What to write if an argument is a parameter of a part that another argument names."""
    for field, given in arguments.items():
        named = given if isinstance(given, str) else type(given).__name__
        if (kind := KINDS.get(field)) and named in kind and key in kind[named].parameters:
            return f" {named} has it: write {field}={named}({key}=…)."
    return ""


def _replaced(
    key: str, made: Strategy, make: Callable[..., Strategy], given: Any, rest: Any
) -> bool:
    """Whether an argument of a recipe that counts on its own does not count among the others."""
    others = tuple((k, v) for k, v in given.items() if k != key)
    build: Callable[..., Strategy] = _built
    try:
        hash(others)
    except TypeError:
        build = _built.__wrapped__
    try:
        without = build(make, others)
        without = without.replace(**rest) if rest else without
        return without == made and make(**{key: given[key]}) != make()
    except Exception:  # the others need it, whatever a recipe raises then
        return False


@functools.lru_cache(maxsize=4096)  # the cells of a grid differ in few arguments at a time
def _built(make: Callable[..., Strategy], given: tuple[tuple[str, Any], ...]) -> Strategy:
    return make(**dict(given))


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
    check_table(values, FIELDS, recipes.names())
    given = resolve(values)
    if "steps" in given:
        given["steps"] = [_step(step) for step in given["steps"]]
    return Strategy(**given)


def _step(given: Any) -> Step:
    if not isinstance(given, Mapping):
        raise ConfigError(f"expected a step as a table of its fields, got {shown(given)}.")
    values = resolve(dict(given))
    return Step(**values)
