"""A dry run: the cells of a plan and what they would cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from tokenred.analysis.study.design import Design
from tokenred.analysis.study.plan import Plan
from tokenred.analysis.study.store import Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["list_cells"]

_CHUNK = 500


def list_cells(plan: Plan, design: Design, store: Store | None) -> pd.DataFrame:
    """One row a cell: axes, strategy, settings, GMACs, tokens, and whether it is done.

    Args:
        plan: of the grid.
        design: of the grid.
        store: says what is done already.
    """
    import pandas as pd

    return pd.DataFrame(list(_rows(plan, design, store)))


def _rows(plan: Plan, design: Design, store: Store | None) -> Iterator[dict[str, Any]]:
    cells = plan.listed()
    seen: set[str] = set()
    while some := list(islice(cells, _CHUNK)):
        known = {} if store is None else store.status([key for _, key, _ in some])
        for position, key, why in some:
            cell = plan.cell(position)
            setting = cell.setting
            data = design.datasets[setting.data]
            row = {
                **json.loads(cell.axes_json),
                "strategy": cell.label,
                "method": cell.base.method,
                "model": design.models[setting.model].label,
                "data": "" if data is None else data.label,
                "limit": setting.limit,
                "seed": setting.seed,
                "dtype": setting.dtype,
            }
            if why is None:
                cost = plan.cost(cell)
                tokens = [cost.layers[0].tokens_in, *(layer.tokens_out for layer in cost.layers)]
                row |= {
                    "gmacs": cost.gmacs,
                    "overhead_gmacs": cost.overhead_gmacs,
                    "tokens": " ".join(map(str, tokens)),
                }
            stored = known.get(key, ("", ""))[0]
            status = stored or ("skipped" if why else "repeated" if key in seen else "to do")
            seen.add(key)
            yield {**row, "status": status, "why": why or "", "key": key}
