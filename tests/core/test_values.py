from __future__ import annotations

import dataclasses
import math
import pickle
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import cloudpickle
import numpy as np
import pytest
import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

import tokenred as tr
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.values import (
    Blocks,
    Count,
    LaterBlocks,
    PartOf,
    Share,
    checked,
    parameters_of,
    read,
)


@pytest.mark.parametrize(
    ("annotation", "written", "value"),
    [
        (Count, np.int64(8), 8),
        (Count, torch.tensor(8), 8),
        (float, 1, 1.0),
        (float, -0.0, 0.0),
        (float, np.float32(0.5), 0.5),
        (bool, "No", False),
        (bool, " on ", True),
        (bool, 0, False),
        (bool, np.bool_(True), True),
        (Blocks | None, [4, 5], (4, 5)),
        (Blocks | None, range(3), (0, 1, 2)),
        (Blocks | None, np.array([1, 2]), (1, 2)),
        (Blocks | None, None, None),
        (Share | tuple[Share, ...], [1, 0.5], (1.0, 0.5)),
        (Literal["both", "none"], None, "none"),
        (int | float, 8, 8),
        (int | float, 8.0, 8.0),
        (bool | int, 1, 1),
        (str | bool, "no", "no"),
        (list[int], (1, 2), [1, 2]),
        (list[int] | tuple[int, float], [8, 1], [8, 1]),
        (list[int] | tuple[int, float], (8, 1), (8, 1.0)),
        (list[int] | tuple[int, float], [8, 0.5], (8, 0.5)),
    ],
)
def test_read_as_the_annotation_says(annotation: Any, written: object, value: object) -> None:
    found = read(annotation, written, "x")
    assert found == value
    assert type(found) is type(value)
    assert math.copysign(1, found) == 1 if found == 0 else True


@pytest.mark.parametrize(
    ("annotation", "written", "message"),
    [
        (Count, 8.0, r"x must be a whole number of at least 0, got 8.0. Write 8."),
        (Count, True, "whole number"),
        (Count, "8", "whole number"),
        (Count, 2**63, "whole number"),
        (float, math.nan, "finite number, got nan"),
        (float, 2**53 + 1, "finite number"),
        (float, "1", "finite number"),
        (PartOf, 1, r"finite number in \(0, 1\)"),
        (bool, "maybe", "True or False, got 'maybe'"),
        (bool, 1.0, "True or False"),
        (Blocks | None, [5, 4], "ascending block numbers from 0 on or None"),
        (Blocks, [4.5], "ascending block numbers"),
        (Blocks, [], "ascending block numbers"),
        (Blocks, {4, 5}, "ascending block numbers"),
        (LaterBlocks, (0, 4), "ascending block numbers from 1 on"),
        (tuple[Count, ...], range(10**9), "a list of whole numbers"),
        (tuple[str, ...], "abc", "a list of texts"),
        (str, "\ud800", "text"),
        (Literal["max", "mean"], "sum", "one of 'max', 'mean', got 'sum'"),
    ],
)
def test_refused_with_what_was_expected(annotation: Any, written: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(annotation, written, "x")


def test_what_is_not_known_is_passed_on() -> None:
    images = torch.zeros(2, 3)
    for annotation in (Tensor, Float[Tensor, "b n"], Any, dict[str, int], float | Tensor):
        assert read(annotation, images, "x") is images
    # What no library can read is not read either.
    assert read(Annotated[Tensor, Ge(0)], images, "x") is images


@checked
@dataclass(frozen=True)
class Settings:
    count: int
    rate: float = 1
    limit: float = math.inf
    names: list[str] = field(default_factory=list)
    other: Nowhere = 3  # type: ignore[name-defined]
    kind: ClassVar[int] = 3
    seed: InitVar[int] = 0


def test_a_dataclass_reads_all_its_arguments() -> None:
    made = Settings(np.int64(3), names=("a",))  # type: ignore[arg-type]
    assert repr(made) == ("Settings(count=3, rate=1.0, limit=inf, names=['a'], other=3)")
    assert dataclasses.replace(made, seed=1) == made
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(ConfigError, match=r"Settings: missing a required argument: 'count'"):
        Settings()  # type: ignore[call-arg]
    with pytest.raises(UnknownNameError, match="Did you mean 'rate'"):
        Settings(1, rates=2)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="Settings: seed must be a whole number"):
        Settings(1, seed="1")  # type: ignore[arg-type]


def test_parts_of_a_notebook_read_plain_annotations() -> None:
    class Mine(tr.Scorer):
        power: float = 1
        names: tuple[str, ...] = ()
        weights: Float[Tensor, "n"] | None = None
        own: Local | None = None

    class Local:
        pass

    assert Mine(2, ["a"]) == Mine(2.0, ("a",))  # type: ignore[arg-type]
    assert repr(Mine()).endswith("Mine(power=1.0, names=(), weights=None, own=None)")
    assert Mine().replace(own=Local(), weights=torch.ones(2)).power == 1.0
    with pytest.raises(ConfigError, match="Mine: power must be a finite number, got 'x'"):
        Mine("x")  # type: ignore[arg-type]
    travelled = pickle.loads(cloudpickle.dumps(Mine))
    assert repr(travelled(3)) == repr(Mine(3))


def test_a_function_reads_its_arguments_and_keeps_its_signature() -> None:
    @checked
    def f(count: Count, *rest: int, on: bool = False, **more: Any) -> Any:
        return count, rest, on, more

    assert f(np.int8(2), 3, on="no", x=1) == (2, (3,), False, {"x": 1})  # type: ignore[arg-type]
    assert parameters_of(f)["on"] is bool
    assert f.__name__ == "f"


def test_recipes_called_as_functions_read_too() -> None:
    from tokenred.strategies.recipes import evit, tome

    assert evit(fuse="no") == evit(fuse=False)  # type: ignore[arg-type]
    assert tome(r=[8, 1]).schedule == tr.PerLayer((8, 1))
    assert tome(r=(8, 1)).schedule == tr.Linear(8, 1.0)
    with pytest.raises(ConfigError, match="r must be"):
        tome(r=(8, 4))  # neither two blocks nor an inflection
    assert tr.strategy("gtp", theta=1).fingerprint() == tr.strategy("gtp", theta=1.0).fingerprint()
