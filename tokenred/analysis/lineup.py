"""Several strategies on one model, by name, each at a given budget or at given counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from tokenred.analysis.measure.machine import base_of
from tokenred.backbones import adapt
from tokenred.core.errors import ConfigError, ScheduleError, TokenredError, shown
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import dense, wrap
from tokenred.strategies.schedule import Schedule, ScheduleContext
from tokenred.strategies.schedules import Constant, PerLayer
from tokenred.strategies.specs import Spec as Spec
from tokenred.strategies.specs import StrategyLike
from tokenred.strategies.specs import at_budget as at_budget
from tokenred.strategies.specs import parse_spec as parse_spec
from tokenred.strategies.specs import same_budget as same_budget
from tokenred.strategies.strategy import recipes

DENSE = "dense"
Strategies = Sequence[StrategyLike] | Mapping[str, StrategyLike]


@dataclass(frozen=True, eq=False)
class Entry:
    """A strategy on the model, under the user's name for it."""

    label: str
    method: str
    model: ReducedViT

    @property
    def tokens(self) -> tuple[int, ...]:
        """Image tokens after each block."""
        return tuple(layer.tokens_out for layer in self.model.cost().layers)


def named_specs(strategies: Strategies) -> list[Spec]:
    """Strategies as the user lists them, each with its own name; dense is omitted.

    Raises:
        TokenredError: as raised by `parse_spec`, and for a repeated name or something other than a
            list.
    """
    if isinstance(strategies, StrategyLike):
        raise ConfigError(
            f"expected a list of strategies, got {shown(strategies)}; put it into [ ]."
        )
    if isinstance(strategies, Mapping):
        specs = [_named(label, given) for label, given in strategies.items()]
    else:
        specs = [parse_spec(given) for given in strategies if str(given).casefold() != DENSE]
    labels = [spec.label for spec in specs]
    if twice := sorted({label for label in labels if labels.count(label) > 1 or label == DENSE}):
        raise ConfigError(
            f"expected a distinct name for each strategy, got {twice[0]!r} twice; leave one "
            'out, or name them in a dictionary: {"first": …, "second": …}.'
        )
    return specs


def _named(label: str, given: StrategyLike) -> Spec:
    if not isinstance(label, str):
        raise ConfigError(f"expected a name as text for each strategy, got {shown(label)}.")
    spec = parse_spec(given)
    # A strategy without a recipe counts as its own method.
    return replace(spec, label=label, method=spec.method if spec.method in recipes else label)


def lineup(
    model: nn.Module, strategies: Strategies, *, gmacs_share: float | None = None
) -> tuple[list[Entry], tuple[str, ...]]:
    """The dense model, then each strategy wrapped around it; and notes as of `wrap_specs`.

    With ``gmacs_share``, each may cost that share of the dense model's GMACs.

    Raises:
        ConfigError: for a share out of range, or a strategy that also has its own.
        TokenredError: as `tokenred.wrap` raises them, with the strategy's name.
    """
    specs = named_specs(strategies)
    if gmacs_share is not None:
        names = [spec.label for spec in specs]
        scaled = same_budget([gmacs_share], specs)
        specs = [replace(spec, label=name) for spec, name in zip(scaled, names, strict=True)]
    base = base_of(model)
    reduced, notes = wrap_specs(base, specs)
    rest = [Entry(s.label, s.method, reduced[s.label]) for s in specs if s.label in reduced]
    return [Entry(DENSE, DENSE, dense(base)), *rest], notes


def lineup_at_counts(
    model: nn.Module, strategies: Strategies, removed: int | Sequence[int] | None = None
) -> list[Entry]:
    """Strategies that all keep the same number of image tokens after each block; no dense model.

    Their schedules are replaced. ``removed`` tokens leave each block: one count, or a list, padded
    with 0; None for 8 per block, or half of all tokens if a model has too few. A fuser that adds a
    token removes one more.

    Raises:
        ConfigError: for fewer than two strategies, one with a budget, nothing removed, or counts
            that one of them cannot meet.
        TokenredError: as `tokenred.wrap` raises them, with the strategy's name.
    """
    specs = named_specs(strategies)
    if len(specs) < 2:
        raise ConfigError(f"expected two strategies or more to compare, got {len(specs)}.")
    if budgeted := [spec.label for spec in specs if spec.share is not None]:
        raise ConfigError(
            f"{budgeted[0]!r} has its own budget, but here all remove the same counts; leave out "
            "the budget."
        )
    base = base_of(model)
    counts = _counts(base, removed)
    if not any(counts):
        raise ConfigError("expected tokens to be removed in some block, got none; all would agree.")
    first, *others = [
        Entry(spec.label, spec.method, wrap_spec(base, _removing(spec, counts))) for spec in specs
    ]
    for each in others:
        if each.tokens != first.tokens:
            raise ConfigError(
                f"expected the same counts of all methods, got {first.tokens} tokens after the "
                f"blocks from {first.label!r} and {each.tokens} from {each.label!r}; remove fewer."
            )
    return [first, *others]


def _counts(base: nn.Module, removed: int | Sequence[int] | None) -> tuple[int, ...]:
    info = adapt(base).info
    wanted: Schedule
    if removed is None:
        wanted = Constant(8, fit=True)
    else:
        wanted = Constant(removed) if isinstance(removed, int) else PerLayer(tuple(removed))
    return wanted.resolve(ScheduleContext(info.depth, info.num_patches))


def _removing(spec: Spec, counts: Sequence[int]) -> Spec:
    fuser, depth = spec.strategy.fuser, len(counts)
    schedule = PerLayer(
        tuple(count + fuser.extra_in(i, depth) if count else 0 for i, count in enumerate(counts))
    )
    return replace(spec, strategy=spec.strategy.replace(schedule=schedule))


def wrap_specs(
    base: nn.Module, specs: Sequence[Spec]
) -> tuple[dict[str, ReducedViT], tuple[str, ...]]:
    """The model with each strategy, by label, and a note on each that cannot meet its budget.

    Raises:
        BackboneError: if no adapter knows the model.
        ScheduleError: if none can.
        TokenredError: as `tokenred.wrap` raises them, with the strategy's name.
    """
    adapt(base)  # refuses the model here, not in the name of a strategy
    found: dict[str, ReducedViT] = {}
    missed: list[ScheduleError] = []
    for spec in specs:
        try:
            found[spec.label] = wrap_spec(base, spec)
        except ScheduleError as error:
            if spec.share is None:
                raise
            missed.append(error)
    if missed and not found:
        raise missed[0]
    return found, tuple(f"Left out: {error}" for error in missed)


def wrap_spec(base: nn.Module, spec: Spec) -> ReducedViT:
    """A model with a strategy, whose name errors then mention."""
    try:
        return wrap(base, spec)
    except TokenredError as error:
        raise type(error)(f"{spec.label}: {error}") from error
