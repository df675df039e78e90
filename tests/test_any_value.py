"""Any value for any parameter: refused with an error of tokenred's, or taken as it was written.

What there is to try comes from the registries and annotations: a new part is covered unnamed.
"""

import contextlib
import enum
import math
import types
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.study_file import read_study
from tokenred.core.errors import TokenredError
from tokenred.core.notation import read_assignment
from tokenred.core.part import Part
from tokenred.core.registry import KINDS
from tokenred.core.values import parameters_of
from tokenred.strategies.specs import parse_spec
from tokenred.strategies.strategy import from_config, recipes
from tokenred.training import settings_for
from tokenred.training.losses import Criterion, make_criterion
from tokenred.training.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning"),
    pytest.mark.filterwarnings("ignore::tokenred.core.errors.UnusedWarning"),
]

Make = Callable[[Any], Any]


class Word(enum.Enum):
    MAX = "max"


class Odd:
    """Fails however it is looked at."""

    def _fail(self, *args: object) -> Any:
        raise RuntimeError("odd")

    __eq__ = __hash__ = __repr__ = __str__ = __bool__ = __len__ = __iter__ = _fail  # type: ignore[assignment]
    __int__ = __float__ = __index__ = __lt__ = __contains__ = __getitem__ = __call__ = _fail


def deep(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


def endless() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


HOSTILE: list[Any] = [
    None, True, False, 0, 1, -1, 2, 8, 2**31, 2**53 + 1, 2**63, -(10**30), 10**400, 10**5000,
    0.0, -0.0, 0.5, 1.0, 8.0, -1e-9, 5e-324, 1e308, math.nan, math.inf, -math.inf, 1j,
    "", " ", "no", "Off", "none", "true", "max", "8", "0.5", "mixed", "\ud800", "\0", "ü" * 1000,
    b"", b"max", bytearray(b"x"), [], [4, 5], [5, 4], [4, 4], [4.5], [0], [-1], [True], ["a"],
    [None], [[1]], [math.nan], [0.5, 1], [8, 1], (), (8, 1), (8, 0.5), (1, 2, 3), ("a", 1),
    range(3), range(3, 0, -1), range(10**9), {}, {"name": "x"}, {"name": []}, {1: 2}, {"a": 1},
    {4, 5}, frozenset(), (x for x in (1, 2)), iter([3]), np.int64(8), np.float32(0.5),
    np.float64(1), np.bool_(True), np.str_("max"), np.longdouble(1), np.complex64(1), np.array(3),
    np.array([1, 2]), np.array([0.5, 1]), np.array([[1]]), np.array(["a"]), np.array([None]),
    np.array([]), np.datetime64("2020"), torch.tensor(8), torch.tensor(0.5), torch.tensor(True),
    torch.tensor([1, 2]), torch.zeros(2, 2), torch.tensor([]), torch.zeros((), device="meta"),
    Decimal("0.5"), Fraction(1, 3), object(), int, len, lambda: 0, Word.MAX, Word, Odd, Odd(),
    [Odd()], Ellipsis, NotImplemented, Path("x"), deep(10), deep(10**4), endless(),
    types.MappingProxyType({}), torch.nn.Identity(), torch.float32, torch.device("cpu"),
    memoryview(b"ab"), math, tr.scorers.Random(), tr.scorers.Random, tr.Constant(8),
    tr.fusers.Prune(), tr.Strategy("Random"), tr.strategy, Exception("x"),
]  # fmt: skip

PLAUSIBLE = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 20), st.integers(), st.floats(0, 1), st.floats(),
    st.text(max_size=8), st.sampled_from(["max", "mean", "no", "on", "ceil", "none", "CLSAttn"]),
    st.lists(st.integers(0, 12), max_size=4, unique=True).map(sorted),
    st.lists(st.integers() | st.floats() | st.text(max_size=3), max_size=4),
    st.tuples(st.integers(0, 20), st.floats(-1, 1)),
)  # fmt: skip
# By their places: some cannot be printed.
KEYS = st.text(max_size=4)
NESTED = st.recursive(
    PLAUSIBLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner)
)
VALUES = st.integers(0, len(HOSTILE) - 1).map(HOSTILE.__getitem__) | PLAUSIBLE | NESTED

# What a part cannot be made without.
NEEDED = {"P": 1, "r": 1, "gmacs": 1.0, "counts": (1,), "scorer": "Random"}
GRID = {"base": "gtp", "model": "digits", "metrics": ()}
# Loaded once, not by every grid that is planned.
DIGITS = tr.models.load_model("digits")


def read_back(make: Callable[..., Any], name: str, needed: Mapping[str, Any]) -> Make:
    """Makes something with one value, and reads the value back from it."""
    fixed = {k: v for k, v in needed.items() if k in parameters_of(make)}
    return lambda value: getattr(make(**fixed | {name: value}), name)


def in_recipe(recipe: str, name: str) -> Make:
    return lambda value: tr.strategy(recipe, **{name: value})


def classes() -> list[tuple[Callable[..., Any], Mapping[str, Any]]]:
    parts = [
        entry.make for registry in KINDS.values() if registry is not recipes for entry in registry
    ]
    own = (tr.Strategy, Settings, Criterion)
    return [*((make, NEEDED) for make in (*parts, *own)), (Grid, GRID)]


FIELDS: dict[str, Make] = {
    f"{make.__name__}.{name}": read_back(make, name, needed)
    for make, needed in classes()
    for name in parameters_of(make)
}
ARGUMENTS: dict[str, Make] = {
    f"{entry.name}:{name}": in_recipe(entry.name, name)
    for entry in recipes
    for name in parameters_of(entry.make)
}


NAMES = {name: part for kind in KINDS.values() for name, part in kind.built_in().items()}
NAMES["Strategy"] = tr.Strategy


def attempt(make: Make, value: Any) -> Any:
    """What was made, or the refusal; any other error is raised."""
    try:
        return make(value)
    except TokenredError as error:
        return error


def plain(value: Any) -> Any:
    """As Python writes it: its own numbers, and tuples for all that is in order."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        value = value.tolist()
    if isinstance(value, list | tuple | range):
        return tuple(plain(v) for v in value)
    return str.__str__(value) if isinstance(value, str) else value


def holds(value: Any, read: Any) -> bool:
    """Whether what is read is what was written, but for what `tokenred.core.values` says."""
    if read is value:
        return True
    if isinstance(read, tuple) and value is None:
        return [type(step) for step in read] == [tr.Step]  # steps that are not given
    if isinstance(read, Part):  # by its name, its table or, for a schedule, a number
        # A budget finds the number of its schedule.
        return isinstance(value, str | Mapping | tr.Constant | None) or read == tr.Constant(
            plain(value)
        )
    value = tuple(value.items()) if isinstance(value, Mapping) else value
    value, read = plain(value), plain(read)
    if isinstance(read, bool) and isinstance(value, str):
        words = {True: ("true", "yes", "on", "1"), False: ("false", "no", "off", "0")}
        return value.strip().casefold() in words[read]
    if value is None:
        return read == "none"
    if isinstance(read, tuple) and isinstance(value, int):  # one block for several
        read = read[0]
    if isinstance(value, bool) != isinstance(read, bool) and (value not in (0, 1) or read != value):
        return False
    # A float is never taken for a whole number, only a whole number for a float.
    return bool(read == value) and not (type(value) is float and type(read) is int)


def check(name: str, value: Any) -> None:
    found = attempt(FIELDS[name], value)
    if not isinstance(found, TokenredError):
        assert holds(value, found), f"{name}: {value!r} became {found!r}"


def check_recipe(name: str, value: Any) -> None:
    made = attempt(ARGUMENTS[name], value)
    if isinstance(made, TokenredError):
        return
    again = tr.Strategy.from_toml(made.to_toml())
    assert again == made == eval(repr(made), dict(NAMES))
    assert again.fingerprint() == made.fingerprint()
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        assert ARGUMENTS[name](value.tolist()) == made


@pytest.mark.parametrize("name", FIELDS)
def test_hostile_values_of_a_parameter(name: str) -> None:
    for value in HOSTILE:
        check(name, value)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_hostile_values_of_a_recipe(name: str) -> None:
    for value in HOSTILE:
        check_recipe(name, value)


def on_an_axis(name: str) -> Make:
    def make(value: Any) -> Any:
        grid = Grid("gtp", {name: [value]}, model=DIGITS, metrics=())
        (cell,) = grid
        return cell.strategy

    return make


ENTRIES: dict[str, Make] = {
    "strategy": tr.strategy,
    "text": parse_spec,
    "toml": tr.Strategy.from_toml,
    "table": from_config,
    "recipe": lambda value: from_config({"recipe": value}),
    "part": lambda value: from_config({"scorer": {"name": value}}),
    "field": lambda value: from_config(
        {"scorer": "Random", "schedule": {"name": "PerLayer", "counts": value}}
    ),
    "settings": settings_for,
    "criterion": make_criterion,
    "axis": lambda value: Grid("gtp", {value: [1]}, model="digits", metrics=()),
} | {
    f"axis {name}": on_an_axis(name)
    for name in (
        "P", "theta", "graph", "scorer", "aggregate", "scorer.aggregate", "schedule", "seed",
        "score_mods", "limit", "budget", "dtype", "base", "model", "data",
    )
}  # fmt: skip


# What a grid reads in the same way as these.
ALIKE = ("theta", "graph", "aggregate", "scorer.aggregate", "schedule", "score_mods", "seed")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name.removeprefix("axis ") in ALIKE else [])
        for name in ENTRIES
    ],
)
def test_hostile_values_where_they_come_in(name: str) -> None:
    for value in HOSTILE:
        hashable = value.__class__.__hash__ is not None and not isinstance(value, Odd | memoryview)
        if name != "axis" or hashable:
            attempt(ENTRIES[name], value)


def test_there_are_parameters_and_every_annotation_is_known() -> None:
    assert len(FIELDS) > 100
    assert len(ARGUMENTS) > 50
    unknown = [
        f"{make.__name__}.{name}"
        for make in (*(make for make, _ in classes()), *(entry.make for entry in recipes))
        for name, annotation in parameters_of(make).items()
        if annotation is Any and make is not Grid
    ]
    assert not unknown


QUICK = settings(
    max_examples=200, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)


@QUICK
@given(name=st.sampled_from(sorted(FIELDS)), value=VALUES)
def test_random_values_of_a_parameter(name: str, value: Any) -> None:
    check(name, value)


@QUICK
@given(name=st.sampled_from(sorted(ARGUMENTS)), value=VALUES)
def test_random_values_of_a_recipe(name: str, value: Any) -> None:
    check_recipe(name, value)


@pytest.mark.slow
@settings(QUICK, max_examples=2000)
@given(name=st.sampled_from(sorted({**FIELDS, **ARGUMENTS})), value=VALUES)
def test_many_random_values(name: str, value: Any) -> None:
    (check if name in FIELDS else check_recipe)(name, value)


@QUICK
@given(name=st.sampled_from(sorted(ARGUMENTS)), text=st.text(max_size=30) | PLAUSIBLE.map(str))
def test_random_text_of_a_strategy_and_of_a_setting(name: str, text: str) -> None:
    attempt(parse_spec, f"{name}={text}")
    attempt(parse_spec, text)
    attempt(lambda value: Settings().replace(**dict([read_assignment(value, "--set")])), text)


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("value", [2, 0.5, (1, 2), [1, 2], "none", "no", True])
def test_the_same_in_text_as_in_python(name: str, value: Any) -> None:
    made = attempt(ARGUMENTS[name], None if value == "none" else value)
    written = value if isinstance(value, str) else repr(value)
    read = attempt(lambda text: parse_spec(text).strategy, f"{name}={written}")
    assert type(read) is type(made)
    assert isinstance(made, TokenredError) or read == made


@settings(QUICK, max_examples=60)
@given(name=st.sampled_from(sorted(parameters_of(Grid))), value=VALUES)
def test_random_values_in_a_study_file(tmp_path_factory: Any, name: str, value: Any) -> None:
    path = tmp_path_factory.mktemp("study", numbered=True) / "a.toml"
    study = {"model": "digits", "metrics": [], name: value}
    with contextlib.suppress(Exception):  # what TOML cannot hold
        path.write_text(tomli_w.dumps({"study": study, "axes": {"P": [1]}}), encoding="utf-8")
        if path.exists():
            attempt(lambda _: Grid(**read_study(path, parameters_of(Grid)).grid), None)


def test_what_is_accepted_runs_or_is_refused() -> None:
    small = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 3, "num_heads": 1}
    model = VisionTransformer(**small, num_classes=5).eval()
    images, ran = torch.zeros(1, 3, 16, 16), 0
    tried: set[tr.Strategy] = set()
    for make in ARGUMENTS.values():
        for value in HOSTILE:
            made = attempt(make, value)
            if isinstance(made, tr.Strategy) and made not in tried:
                tried.add(made)
                reduced = attempt(lambda strategy: tr.wrap(model, strategy), made)
                if not isinstance(reduced, TokenredError):
                    ran += 1
                    assert reduced(images).shape == (1, 5)
    assert ran > 50
