"""Every combination once, and a key that says when two measurements are the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import tokenred as tr
from tokenred.analysis.sweeps.cells import Cell, grid
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.strategies.specs import parse_spec

MACHINE: dict[str, Any] = {
    "processor": "P", "cores": 2, "threads": 2, "torch": "2", "tokenred": "1", "device": "cpu",
}  # fmt: skip
AXES: dict[str, Any] = {
    "batch_sizes": (1,), "image_sizes": (None,), "dtypes": ("float32",), "compile": (False,),
    "threads": (None,), "devices": ("cpu",),
}  # fmt: skip
CELL = Cell("digits", parse_spec("gtp:P=4"), 8)


def test_every_combination_and_models_together() -> None:
    cells = grid(
        ["a", "b"], ["topk", tr.strategy("evit")],
        batch_sizes=(1, 8), image_sizes=(None, 64, (32, 64)), dtypes=("float32", "bfloat16"),
        compile=(False, True), threads=(1, 2), devices=("cpu", "cuda"),
    )  # fmt: skip
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 3 * 2 * 2 * 2 * 2
    assert [cell.model for cell in cells] == ["a"] * 192 + ["b"] * 192
    assert {cell.image_size for cell in cells} == {None, (64, 64), (32, 64)}
    (one,) = grid("digits", ["topk"], **AXES)
    assert one == Cell("digits", parse_spec("topk"), 1)


def test_the_key_changes_with_all_that_matters() -> None:
    how = {"pairs": 3, "seed": 0}
    others = [
        replace(CELL, model="other"),
        replace(CELL, spec=parse_spec("gtp:P=5")),
        replace(CELL, spec=parse_spec("gtp:P=4,alpha=0.2")),
        replace(CELL, batch_size=9),
        replace(CELL, image_size=(32, 32)),
        replace(CELL, dtype="bfloat16"),
        replace(CELL, compile=True),
        replace(CELL, threads=1),
        replace(CELL, device="cuda"),
    ]
    keys = [cell.key(MACHINE, how) for cell in (CELL, *others)]
    keys.append(CELL.key(MACHINE, how | {"pairs": 4}))
    keys += [CELL.key(MACHINE | {name: "other"}, how) for name in ("processor", "torch", "threads")]
    assert len(set(keys)) == len(keys)
    # The threads that are there anyway, and facts that time does not hang on.
    same = [replace(CELL, threads=2).key(MACHINE, how), CELL.key(MACHINE | {"platform": "x"}, how)]
    assert set(same) == {keys[0]}


def _scored(scorer: tr.Scorer) -> Cell:
    mine = tr.strategy("topk").replace(scorer=scorer)
    return replace(CELL, spec=replace(parse_spec(mine), label="mine", method="mine"))


def test_an_edited_part_is_another_cell() -> None:
    def before() -> tr.Scorer:
        class Own(tr.Scorer):
            def __call__(self, state, attention):  # type: ignore[no-untyped-def]
                return state.image.norm(dim=-1)

        return Own()

    def after() -> tr.Scorer:
        class Own(tr.Scorer):
            def __call__(self, state, attention):  # type: ignore[no-untyped-def]
                return -state.image.norm(dim=-1)

        return Own()

    keys = {_scored(make()).key(MACHINE, {}) for make in (before, before, after)}
    assert len(keys) == 2


def test_printed() -> None:
    assert str(CELL) == "digits, gtp:P=4, batch 8, float32, cpu"
    full = replace(CELL, image_size=(32, 64), compile="default", threads=2)
    assert str(full).endswith("cpu, images 32x64, compiled, default, 2 threads")
    assert str(replace(CELL, compile=True, threads=1)).endswith("compiled, 1 thread")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_sizes": ()}, "at least one of the batch sizes"),
        ({"batch_sizes": (1, 1)}, "each of the batch sizes once"),
        ({"batch_sizes": (0,)}, "batch_size"),
        ({"image_sizes": (0,)}, "image_size"),
        ({"image_sizes": ((1, 2, 3),)}, r"a side or \(height, width\)"),
        ({"image_sizes": (64, (64, 64))}, "each of the image sizes once"),
        ({"dtypes": ("int8",)}, "float32"),
        ({"compile": ("fast",)}, "compile"),
        ({"threads": (0,)}, "threads"),
    ],
)
def test_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grid("digits", ["topk"], **AXES | change)


def test_refused_strategies() -> None:
    with pytest.raises(ConfigError, match="a list of strategies"):
        grid("digits", "topk", **AXES)
    with pytest.raises(ConfigError, match="each of the strategies once"):
        grid("digits", ["topk", "topk"], **AXES)
    with pytest.raises(UnknownNameError, match="nothing"):
        grid("digits", ["nothing"], **AXES)
