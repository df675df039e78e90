"""What the source is asked refuses nothing that is there; see also ``test_refusals.py``."""

import json
import re
import sys
from dataclasses import fields, is_dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest

from tokenred.analysis.study import engines, metrics
from tokenred.analysis.study.cell import OUTSIDE
from tokenred.cli import declared as source
from tokenred.cli.options import ModelOptions
from tokenred.cli.refusing import ENGINES, read_axes, refuse_unknown
from tokenred.core.errors import TokenredError, UnknownNameError
from tokenred.core.registry import KINDS
from tokenred.strategies.specs import write_value
from tokenred.strategies.strategy import FIELDS, Strategy


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_registered_can_be_named(kind: str) -> None:
    for entry in KINDS[kind]:
        if entry.source.startswith("tokenred."):
            names = set(entry.parameters)
            names |= {f.name for f in fields(entry.make)} if is_dataclass(entry.make) else set()
            axes = [
                f"{at}{name}=1" for name in names for at in ("", f"{kind}.", f"steps.1.{kind}.")
            ]
            parts = [f"{kind}={entry.name}"] * (kind != "strategy")
            refuse_unknown({"axis": (*parts, *axes), "invalid": "skip"})  # names only
            if kind == "strategy":
                every = signature(Strategy).parameters | dict(signature(entry.make).parameters)
                values = {n: write_value(p.default) for n, p in every.items()}
                specs = [f"{entry.name}:{n}={value}@0.7" for n, value in values.items()]
                refuse_unknown({"strategy": (entry.name, *specs), "base": specs[0]})


def test_settings_can_be_axes_and_their_misspellings_cannot() -> None:
    names = (*OUTSIDE, *FIELDS)
    refuse_unknown({"axis": tuple(f"{name}=1" for name in names), "invalid": "skip"})
    for name in OUTSIDE:
        with pytest.raises(UnknownNameError, match=f"unknown axis '{name}s_'"):
            refuse_unknown({"axis": (f"{name}s_=1",)})


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_of_every_part_can_be_given(kind: str) -> None:
    for entry in KINDS[kind]:
        if kind != "strategy" and entry.source.startswith("tokenred."):
            told = {n: p.default for n, p in signature(entry.make).parameters.items()}
            given = {n: value for n, value in told.items() if value is not Parameter.empty}
            arguments = ",".join(f"{n}={write_value(value)}" for n, value in given.items())
            part = f"{entry.name}({arguments})"
            part = f"[{part}]" if kind == "score_mods" else part
            refuse_unknown({"strategy": (f"gtp:{kind}={part}",)})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"strategy": ("gtp:P=-1",)}, "gtp: P must be a whole number of at least 0 or None"),
        ({"strategy": ("gtp:theta=7@0.5",)}, "gtp: theta must be a finite number in (0, 1]"),
        ({"base": "gtp:scorer=Random(sed=1)"}, "Random has no parameter 'sed'. Did you mean"),
        ({"against": "gtp:scorer=Random(seed=-1)"}, "Random: seed must be a whole number"),
        ({"builder": "semantic:M=0"}, "Semantic: M must be a whole number of at least 1"),
        ({"axis": ("M=2,0",)}, "axis M of gtp must be a whole number of at least 1"),
        ({"axis": ("base=tome,evit", "keep_rate=0.5,2")}, "axis keep_rate of evit must be"),
        ({"axis": ("scorer=DiagAttn,Diag",)}, "unknown scorer 'Diag'"),
        ({"axis": ("scorer.aggregate=max,median",)}, "axis scorer.aggregate must be one of"),
        ({"axis": ("graph.M=0",)}, "axis graph.M must be a whole number of at least 1"),
        ({"axis": ("gtp.P=4",)}, "unknown axis 'gtp.P'"),
        ({"axis": ("seed=-1",)}, "axis seed must be a whole number of at least 0"),
        ({"strategy": ("gtp:scorer=DiagAttn(aggregate=median)",)}, "DiagAttn: aggregate must be"),
        ({"engine": "prcesses"}, "unknown engine 'prcesses'. Did you mean 'processes'?"),
        ({"metrics": ("accuracy", "acuracy")}, "unknown metric 'acuracy'. Did you mean"),
        ({"model": ModelOptions(model="deit_smal_patch16_224")}, "mean 'deit_small_patch16_224'"),
        ({"model": ModelOptions(model="none.safetensors")}, "cannot read none.safetensors"),
        ({"model": ("vit_tin", "digits")}, "Did you mean 'vit_tiny"),
        ({"axis": ("model=digit,cifar10_vit",)}, "unknown model 'digit'. Did you mean 'digits'?"),
    ],
)
def test_values_are_refused_without_pytorch(
    given: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "timm")  # as at the start of a command
    with pytest.raises(TokenredError, match=re.escape(told)):
        refuse_unknown(given)


def test_a_cell_that_may_be_skipped_is_not_refused() -> None:
    refuse_unknown({"axis": ("P=-1",), "invalid": "skip"})


def test_the_names_of_engines_are_those_of_grids() -> None:
    assert ENGINES == engines.ENGINES


def test_the_names_of_metrics_are_those_that_are_registered() -> None:
    own = (m for m in metrics._METRICS.values() if m.function.__module__ == metrics.__name__)
    refuse_unknown({"metrics": tuple(metric.name for metric in own)})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gtp,tome@0.6", ["gtp", "tome@0.6"]),
        ("gtp:P=4,alpha=0.2,tome:r=4", ["gtp:P=4,alpha=0.2", "tome:r=4"]),
        ("gtp:scorer=Mine(a=1,b=2)@0.65,topk@0.65", ["gtp:scorer=Mine(a=1,b=2)@0.65", "topk@0.65"]),
        ("evit:layers=[3,6],keep_rate=0.7,a.toml,dense",
         ["evit:layers=[3,6],keep_rate=0.7", "a.toml", "dense"]),
    ],
)  # fmt: skip
def test_several_strategies_on_an_axis(text: str, found: list[str]) -> None:
    assert read_axes([f"base={text}"]) == {"base": found}


def test_packages_installed_beside_ours_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_ABOVE", Path(json.__file__).parents[1])
    with pytest.raises(LookupError, match="json is not one of ours"):
        source.declared("json:loads")
