"""One thing changed: another fingerprint. Nothing changed: the same, wherever it is computed."""

import dataclasses
import enum
import functools
import importlib
import io
import os
import random
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchvision import transforms

import tokenred as tr
from tokenred.core import provenance
from tokenred.core.errors import PartError
from tokenred.core.fingerprint import identity_of
from tokenred.core.provenance import is_installed

CELL = """
import dataclasses, enum, functools, math
import numpy as np
import torch
import tokenred as tr

FACTOR = 1.0
TABLE = torch.arange(4.0)
ROWS = np.array([1, 2])
NAMES = {"a", "b", "c"}
NESTED = {"deep": [1, {"er": (2.0, None)}]}
LAYER = torch.nn.Linear(2, 2)
torch.nn.init.ones_(LAYER.weight), torch.nn.init.zeros_(LAYER.bias)

class Kind(enum.Enum):
    ONE = 1

@dataclasses.dataclass(frozen=True)
class Settings:
    power: int = 1
    rows: list = dataclasses.field(default_factory=lambda: [5])

    def __call__(self, x):
        return x + 3

SETTINGS = Settings()

class Plain:
    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x * self.by

PLAIN = Plain(7)

def deeper(x):
    return x - 11

def helper(x, add=13):
    return deeper(x.norm(dim=-1)) + add

def decorated(by):
    def around(function):
        @functools.wraps(function)
        def inner(*args):
            return function(*args) * by
        return inner
    return around

PARTIAL = functools.partial(helper, add=17)

@functools.lru_cache
def cached():
    return 19

class Base(tr.Scorer):
    def scaled(self, x):
        return x * 23

class Edited(Base):
    scale: float = 1.0
    weight = 29

    @property
    def requires(self):
        return (tr.AttentionStat.diagonal("mean"),)

    @staticmethod
    def still(x):
        return x * 31

    @torch.no_grad()
    def __call__(self, state, attention):
        if Kind.ONE in NAMES or NESTED:
            print("seen")
        inner = [lambda x: x * 37 for _ in range(2)]
        values = (TABLE, ROWS, LAYER, SETTINGS, PLAIN, PARTIAL, cached, inner, math.pi)
        return FACTOR * self.again(helper(state.image)), values

    @decorated(41)
    def again(self, x):
        return super().scaled(x)
"""
EDITS = {
    "a global": ("FACTOR = 1.0", "FACTOR = 2.0"),
    "a tensor": ("torch.arange(4.0)", "torch.arange(4.0).flip(0)"),
    "a tensor's type": ("torch.arange(4.0)", "torch.arange(4.0).double()"),
    "an array": ("np.array([1, 2])", "np.array([1, 3])"),
    "a set": ('"c"}', '"d"}'),
    "what lies deep": ("(2.0, None)", "(2.5, None)"),
    "weights": ("init.zeros_(LAYER", "init.ones_(LAYER"),
    "a member": ("ONE = 1", "ONE = 2"),
    "a dataclass's default": ("power: int = 1", "power: int = 2"),
    "a default's maker": ("[5]", "[6]"),
    "a dataclass's method": ("x + 3", "x + 4"),
    "an object's state": ("Plain(7)", "Plain(8)"),
    "an object's method": ("x * self.by", "x / self.by"),
    "a helper's helper": ("x - 11", "x - 12"),
    "a default": ("add=13", "add=14"),
    "a partial": ("add=17", "add=18"),
    "what is cached": ("return 19", "return 20"),
    "a base": ("x * 23", "x * 24"),
    "a field": ("scale: float = 1.0", "scale: float = 1.5"),
    "a class's attribute": ("weight = 29", "weight = 30"),
    "a property": ('diagonal("mean")', 'diagonal("max")'),
    "a static method": ("x * 31", "x * 32"),
    "a lambda": ("x * 37", "x * 38"),
    "what a decorator was given": ("@decorated(41)", "@decorated(42)"),
    "a decorator": ("function(*args) * by", "function(*args) + by"),
    "a library's function": ("math.pi", "math.e"),
}


def define(text: str) -> Any:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "<cell>", "exec"), names)
    return names["Edited"]


def fingerprint_of(text: str) -> str:
    return tr.Strategy(define(text)()).fingerprint()


def test_the_same_cell_run_again() -> None:
    moved = "# A comment.\n\n" + CELL.replace("def deeper", "# Another.\n\ndef deeper")
    assert fingerprint_of(CELL) == fingerprint_of(CELL) == fingerprint_of(moved)


@pytest.mark.parametrize("name", EDITS)
def test_one_thing_edited(name: str) -> None:
    before, after = EDITS[name]
    assert CELL.count(before) == 1
    assert fingerprint_of(CELL) != fingerprint_of(CELL.replace(before, after))


def test_what_it_does_not_read_does_not_count() -> None:
    assert fingerprint_of(CELL + "\nRNG = torch.Generator()\n") == fingerprint_of(CELL)


ELSEWHERE = """
import pickle, sys
part = pickle.loads(sys.stdin.buffer.read())
print(tr.Strategy(part).fingerprint(), tr.Strategy(Edited()).fingerprint())
"""


def test_in_another_process() -> None:
    """Defined there, and come there by pickling: with and without source, whatever strings hash."""
    cell = CELL.replace("@functools.lru_cache", "")  # does not travel
    part = define(cell)()
    expected = tr.Strategy(part).fingerprint()
    packed = cloudpickle.dumps(part)
    assert tr.Strategy(part).fingerprint() == expected  # pickling leaves things on classes
    assert tr.Strategy(cloudpickle.loads(packed)).fingerprint() == expected
    found = subprocess.run(
        [sys.executable, "-c", cell + ELSEWHERE], input=packed, capture_output=True, check=True,
        env=os.environ | {"PYTHONHASHSEED": "1"},
    )  # fmt: skip
    assert found.stdout.decode().split() == [expected] * 2


def test_parameters_count_and_equal_numbers_are_one() -> None:
    prints = {tr.strategy("gtp", P=p, alpha=a).fingerprint() for p in (1, 2) for a in (0.1, 0.2)}
    assert len(prints) == 4
    for one, other in (({"theta": 1}, {}), ({"alpha": 1}, {"alpha": 1.0})):
        assert tr.strategy("gtp", **one).fingerprint() == tr.strategy("gtp", **other).fingerprint()


@pytest.mark.parametrize("name", tr.list_strategies())
def test_built_in_parts_raise_a_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = tr.strategy(name)
    before = strategy.fingerprint()
    for part in strategy.parts.values():
        with monkeypatch.context() as patch:
            patch.setattr(type(part), "version", type(part).version + 1)
            assert strategy.fingerprint() != before
    assert strategy.fingerprint() == before


def test_a_built_in_part_that_somebody_patched() -> None:
    kind = tr.scorers.MixedAttn
    strategy, old = tr.strategy("gtp"), kind.__call__
    before = strategy.fingerprint()
    type.__setattr__(kind, "__call__", lambda self, state, attention: -old(self, state, attention))
    try:
        assert strategy.fingerprint() != before
    finally:
        type.__setattr__(kind, "__call__", old)
    assert strategy.fingerprint() == before


def test_what_a_parameter_holds() -> None:
    class Held(tr.Scorer):
        given: Any = None

        def __call__(self, state: Any, attention: Any) -> Any:
            return state.image

    values = [torch.ones(2), torch.zeros(2), len, max, 1, True, "1", lambda x: x, lambda x: x + 1]
    prints = [tr.Strategy(Held(value)).fingerprint() for value in values]
    assert len(set(prints)) == len(prints)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: object = None


def network(seed: int = 0, heads: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.TransformerEncoderLayer(4, heads, 8, batch_first=True)


def loop(length: int) -> list[Any]:
    found: list[Any] = [length]
    found.append(found)
    return found


MAKERS: list[Callable[[], Any]] = [
    lambda: (None, 1, 1.0, True, "1", b"1", range(3), torch.float32, torch.device("cpu"), torch),
    lambda: ([1, 2], (1, 2), [[1], 2], {1, 2}, {1: 2}, {1: 2, "a": "b"}, loop(1), loop(2)),
    lambda: (torch.tensor([1, 2]), torch.tensor([1.0, 2.0]), torch.tensor([[1, 2]])),
    lambda: (torch.tensor([1.0, 2.0], dtype=torch.bfloat16), torch.tensor([[1, 2]]).to_sparse()),
    lambda: (nn.Parameter(torch.tensor([1.0, 3.0])), network(), network(seed=1)),
    lambda: (network(heads=1), network().eval(), tr.models.load_model("digits")),
    lambda: (np.array([1, 2]), np.array([1, "a"], dtype=object), np.float64(1)),
    lambda: (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"b": [1, 2]}), pd.Series([1, 2])),
    lambda: (Colour.RED, Colour.BLUE, Point(1), Point(1, [2]), Point(3).__eq__, Path("a")),
    lambda: (transforms.Compose([transforms.CenterCrop(4)]), transforms.Normalize(0.5, 0.5)),
    lambda: (transforms.Compose([transforms.CenterCrop(5)]), functools.partial(max, key=len)),
]


def test_every_kind_of_value() -> None:
    first, again = ([identity_of(v, "") for make in MAKERS for v in make()] for _ in range(2))
    assert first == again
    assert len(set(first)) == len(first)


UNKEYED: dict[str, Callable[[], Any]] = {
    "random.Random": lambda: random.Random(0),
    "Generator": lambda: np.random.default_rng(0),
    "RandomState": lambda: np.random.RandomState(0),
    "torch._C.Generator": torch.Generator,
    "BytesIO": io.BytesIO,
    "generator": lambda: (x for x in "ab"),
    "list_iterator": lambda: iter([1]),
    "socket": socket.socket,
    "builtin_function_or_method": lambda: random.Random(0).random,
}


@pytest.mark.parametrize("kind", UNKEYED)
@pytest.mark.parametrize("place", ["global", "closure", "default", "deep", "attribute"])
def test_what_cannot_be_keyed_is_named(kind: str, place: str) -> None:
    value = UNKEYED[kind]()
    names: dict[str, Any] = {
        "__name__": "__main__",
        "tr": tr,
        "HELD": value,
        "DEEP": [{"a": value}],
    }
    body = {
        "global": "def __call__(self, state, attention): return HELD",
        "closure": "__call__ = (lambda HELD: lambda self, state, attention: HELD)(HELD)",
        "default": "def __call__(self, state, attention, by=HELD): return by",
        "deep": "def __call__(self, state, attention): return DEEP",
        "attribute": "held = HELD",
    }[place]
    exec(f"class Mine(tr.Scorer):\n    {body}", names)
    try:
        with pytest.raises(PartError, match=r"Mine.*Create it inside the function") as caught:
            tr.Strategy(names["Mine"]()).fingerprint()
        assert kind.replace("builtin_function_or_method", "Random") in str(caught.value)
        where = {"global": "'HELD'", "closure": "'HELD'", "deep": "'DEEP'", "attribute": "held"}
        assert where.get(place, "defaults") in str(caught.value)
    finally:
        getattr(value, "close", lambda: None)()


MODULES = {
    "__init__": "",
    "scaling": """
        import functools
        import torch

        POWER = {power}

        @functools.cache
        def factor():
            return {factor}

        def scale(x):
            return x.norm(dim=-1) ** POWER
        """,
    "part": """
        import torch
        import tokenred as tr
        from {package} import scaling
        from {package}.scaling import factor

        class Part(tr.Scorer):
            @torch.no_grad()
            def __call__(self, state, attention):
                return factor() * scaling.scale(state.image)
        """,
}


@pytest.mark.parametrize("installed", [False, True])
def test_helpers_in_other_modules_of_the_package_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    def of(power: int = 1, factor: int = 1) -> str:
        folder = tmp_path / f"{power}{factor}"
        (folder / "packed_part").mkdir(parents=True, exist_ok=True)
        for name, text in MODULES.items():
            code = textwrap.dedent(text).format(power=power, factor=factor, package="packed_part")
            (folder / "packed_part" / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(folder)
        forget = lambda: [sys.modules.pop(m) for m in list(sys.modules) if m[:11] == "packed_part"]  # noqa: E731
        forget()
        found = importlib.import_module("packed_part.part")
        told = tr.Strategy(found.Part()).fingerprint()
        forget()
        return told

    is_installed.cache_clear()
    if installed:
        places = (*provenance._places(), tmp_path)
        monkeypatch.setattr(provenance, "_places", lambda: places)
    assert len({of(), of(power=2), of(factor=2)}) == 3
    assert of() == of()
    is_installed.cache_clear()
