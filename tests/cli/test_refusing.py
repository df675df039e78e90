"""What the source is asked refuses nothing that is there; see also ``test_refusals.py``."""

from dataclasses import fields, is_dataclass

import pytest

from tokenred.analysis.study.cell import OUTSIDE
from tokenred.cli.refusing import refuse_unknown
from tokenred.core.errors import UnknownNameError
from tokenred.core.registry import KINDS
from tokenred.strategies.strategy import FIELDS


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_registered_can_be_named(kind: str) -> None:
    for entry in KINDS[kind]:
        if entry.source.startswith("tokenred."):
            names = set(entry.parameters)
            names |= {f.name for f in fields(entry.make)} if is_dataclass(entry.make) else set()
            axes = [
                f"{at}{name}=1" for name in names for at in ("", f"{kind}.", f"steps.1.{kind}.")
            ]
            refuse_unknown({"axis": (f"{kind}={entry.name}", *axes)})
            if kind == "strategy":
                specs = [f"{entry.name}:{name}=none@0.7" for name in {*names, *FIELDS, "selector"}]
                refuse_unknown({"strategy": (entry.name, *specs), "base": specs[0]})


def test_settings_can_be_axes_and_their_misspellings_cannot() -> None:
    refuse_unknown({"axis": tuple(f"{name}=1" for name in (*OUTSIDE, *FIELDS))})
    for name in OUTSIDE:
        with pytest.raises(UnknownNameError, match=f"unknown axis '{name}s_'"):
            refuse_unknown({"axis": (f"{name}s_=1",)})
