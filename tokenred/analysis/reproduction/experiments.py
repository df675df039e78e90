"""The experiments of the GTP paper, from ``gtp_paper.toml``: their models, and the cells to run."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from tokenred.analysis.plots.published import GTP_PAPER, read_rows
from tokenred.backbones import adapt
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.files import read_toml

_DENSE = {"base": "dense"}
_THETAS = (0.9, 0.8, 0.7, 0.6, 0.5)
_UNTOLD = "the paper does not print the settings of {} at this cost"
_LEARNED = "the predictors of DynamicViT must be trained first"
_TUNED = "needs weights fine-tuned with it for 30 epochs"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Backbone:
    """A model of the paper.

    Attributes:
        name: its name in the paper.
        spec: for `tokenred.models.load_model`.
        tokens, depth: image tokens and blocks.
        weights: where to get them, if not from timm.
        note: caveats for comparing figures.
    """

    name: str
    spec: str
    tokens: int = 196
    depth: int = 12
    weights: str = ""
    note: str = ""


@dataclass(frozen=True)
class Experiment:
    """One table or figure.

    Attributes:
        name: on the command line.
        title: what it shows.
        tables: tables of published figures, whose rows are the cells.
        backbones: by the paper's names.
        axes: axes of the cells, if no figures are published.
        follow: strategies whose tokens are followed through the blocks, instead of measuring
            accuracy.
        chart: ``"tradeoff"``, ``"scorers"``, ``"graphs"``, ``"theta"``, ``"heat_map"`` or
            ``"smoothing"``.
        judged: whether its rows are compared with the published ones; not if another experiment
            does that already.
        program: follow the authors' code where it differs from the paper.
        note: caveats for comparing figures.
        rows: published figures that are not in the paper's tables: ``backbone``, ``strategy`` as
            for `tokenred.analysis.parse_spec`, ``top1`` and, if printed, ``gmacs``.
    """

    name: str
    title: str
    tables: Sequence[str] = ()
    backbones: Sequence[str] = ("DeiT-S",)
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    follow: Sequence[str] = ()
    chart: str = "tradeoff"
    judged: bool = True
    program: bool = False
    note: str = ""
    rows: Sequence[Mapping[str, Any]] = ()


_TABLE = read_toml(Path(__file__).with_name("gtp_paper.toml"))
MATCHED: dict[str, dict[str, list[float]]] = _TABLE["matched"]
"""By backbone: settings of the methods at the same GMACs."""
TOLERANCES: dict[str, dict[str, Any]] = _TABLE["tolerances"]
"""By metric: ``within`` how much a figure is the published one, and ``why``."""
BACKBONES = {name: Backbone(name, **told) for name, told in _TABLE["backbones"].items()}
EXPERIMENTS = {name: Experiment(name, **told) for name, told in _TABLE["experiments"].items()}


def choose_experiments(names: Sequence[str] | None) -> list[Experiment]:
    """Experiments by name, in the paper's order; all for None."""
    if names is None:
        return list(EXPERIMENTS.values())
    if not names:
        raise ConfigError("expected the name of an experiment, got an empty list; omit the list.")
    folded = {str(name).casefold().replace(" ", "") for name in names}
    for name in sorted(folded - set(EXPERIMENTS)):
        raise UnknownNameError.of("experiment", name, EXPERIMENTS)
    return [experiment for name, experiment in EXPERIMENTS.items() if name in folded]


def finetuning(spec: str, strategy: str) -> str:
    """The command that fine-tunes weights with a strategy."""
    return (
        f"tokenred finetune --model {spec} --strategy {strategy} --data IMAGENET --preset paper "
        "--output FOLDER"
    )


@dataclass(frozen=True)
class Target:
    """A model to run.

    Attributes:
        name: for tables.
        backbone: the paper's model whose rows it runs.
        model: the model, as for `tokenred.analysis.Grid`.
        tokens, depth: image tokens and blocks of a model that is not the paper's; otherwise 0.
        why_not: why it cannot be run; empty if it can.
    """

    name: str
    backbone: str
    model: Mapping[str, Any]
    tokens: int = 0
    depth: int = 0
    why_not: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is a model of the paper, with figures to compare with."""
        return not self.tokens

    def count(self, P: int) -> int:
        """The paper's P, scaled to the same share of this model's tokens over all blocks.

        At least 1, and at most the number of tokens.
        """
        if self.is_own or not P:
            return P
        theirs = BACKBONES[self.backbone]
        share = P * theirs.depth / theirs.tokens
        return max(1, min(round(share * self.tokens / self.depth), (self.tokens - 1) // self.depth))


def choose_targets(
    models: Sequence[str] | None,
    checkpoints: Mapping[str, str | Path],
    *,
    weights: bool,
    chosen: Sequence[Experiment],
) -> list[Target]:
    """The models to run some experiments on, by name, see `reproduce`; GMACs need no weights."""
    known = {backbone.spec: name for name, backbone in BACKBONES.items()}
    known |= {spec.partition(".")[0]: name for spec, name in known.items()}
    known |= {name.casefold(): name for name in BACKBONES}
    files = {known.get(n.casefold(), n): Path(f).expanduser() for n, f in checkpoints.items()}
    targets = {}
    for given in BACKBONES if models is None else models:
        name = known.get(given.casefold(), given)
        targets[name] = _target(name, files.get(name), weights)
    for name in files:
        if name not in targets:
            raise UnknownNameError.of("model of a checkpoint", name, targets)
    found = list(targets.values())
    if not any(targets_of(experiment, found) for experiment in chosen):
        raise ConfigError(
            f"none of the models ({', '.join(targets)}) belongs to the experiments "
            f"{', '.join(e.name for e in chosen)}; choose others."
        )
    return found


def targets_of(experiment: Experiment, targets: Sequence[Target]) -> list[Target]:
    """The models that run an experiment: its own backbones, and all models not in the paper."""
    own = [t for name in experiment.backbones for t in targets if t.is_own and t.name == name]
    others = [replace(t, backbone=experiment.backbones[0]) for t in targets if not t.is_own]
    return own + others


def _target(name: str, file: Path | None, weights: bool) -> Target:
    backbone = BACKBONES.get(name)
    spec = backbone.spec if backbone else name
    model: dict[str, Any] = {"spec": spec}
    if not weights and not spec.endswith(".safetensors"):
        model["pretrained"] = False
    elif file is not None:
        model["checkpoint"] = str(file)
    if backbone is None:
        from tokenred.models import load_model  # imports timm

        info = adapt(load_model(**model)).info
        return Target(name, "", model, info.num_patches, info.depth)
    why_not = ""
    if weights and backbone.weights and file is None:
        why_not = (
            f"timm has no weights of {backbone.spec}; download {backbone.weights} from the "
            f"authors' release and pass --checkpoint {name}={backbone.weights}"
        )
    return Target(name, name, model, why_not=why_not)


@dataclass(frozen=True)
class Claim:
    """A row of an experiment.

    Attributes:
        label: the strategy.
        cells: cells of the grid; the most accurate of several counts.
        published: ``top1``, ``loss`` (points from the published dense model), ``gmacs``,
            ``speedup`` (over it, on an A6000), if they are printed.
        group: whether the GMACs are those of a group of methods instead of its own.
        why_not: why it cannot be run; empty if it can.
        command: the command that produces what it needs.
    """

    label: str
    cells: tuple[Mapping[str, Any], ...] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    group: bool = False
    why_not: str = ""
    command: str = ""


def claims_of(experiment: Experiment, target: Target) -> list[Claim]:
    """The rows of an experiment on a model; only the paper's models have published values."""
    if experiment.axes:
        combinations = itertools.product(*experiment.axes.values())
        settings = [dict(zip(experiment.axes, values, strict=True)) for values in combinations]
        cells = [{"base": "gtp", **own, "P": target.count(own["P"])} for own in settings]
        return [Claim("dense", (_DENSE,)), *(Claim(_label(cell), (cell,)) for cell in cells)]
    rows = [row for table in experiment.tables for row in published_rows(table, target.backbone)]
    claims = [_claim(row, experiment, target) for row in rows] + _own_claims(experiment, target)
    if target.is_own:
        return claims
    # Several of the paper's counts may become equal.
    return list({str(claim.cells): claim for claim in claims if claim.cells}.values())


def _own_claims(experiment: Experiment, target: Target) -> list[Claim]:
    """Those of the experiment's own rows."""
    rows = [row for row in experiment.rows if row["backbone"] == target.backbone]
    dense = next((row["top1"] for row in rows if row["strategy"] == "dense"), None)
    claims = []
    for row in rows:
        published = {name: row[name] for name in ("top1", "gmacs") if name in row}
        if dense is not None and row["strategy"] != "dense":
            published["loss"] = round(row["top1"] - dense, 2)
        cells = ({"base": row["strategy"]},)
        claims.append(Claim(row["strategy"], cells, published if target.is_own else {}))
    return claims


@cache
def published_rows(table: str | None = None, backbone: str | None = None) -> tuple[Row, ...]:
    """The published rows (of a table or model), in the order of the tables, without empty columns.

    A table is a number, or ``"release-notes"``.
    """
    if table is None and backbone is None:
        rows = read_rows(GTP_PAPER).to_dict("records")
        return tuple({str(k): v for k, v in row.items() if v == v} for row in rows)
    return tuple(
        row
        for row in published_rows()
        if table in (None, row["table"]) and backbone in (None, row["backbone"])
    )


def _claim(row: Row, experiment: Experiment, target: Target) -> Claim:
    published = _published(row) if target.is_own else {}
    cells, why_not = _cells(row, target)
    if experiment.program:
        cells = [{**cell, "reference": True} if "P" in cell else cell for cell in cells]
    label = _label(cells[0]) if cells else f"{row['method']} at {row['gmacs_group']:g} GMACs"
    if len(cells) > 1:
        label = f"{_label({k: v for k, v in cells[0].items() if k != 'theta'})}, best θ"
    if row.get("finetuned"):
        strategy = _written(cells[0]) if cells else row["method"]
        command = finetuning(BACKBONES[row["backbone"]].spec, strategy)
        return Claim(f"{label}, fine-tuned", (), published, True, _TUNED, command)
    return Claim(label, tuple(cells), published, "gmacs" not in row, why_not)


def _cells(row: Row, target: Target) -> tuple[list[dict[str, Any]], str]:
    """What to run, or why not."""
    method, name = row["method"], row["backbone"]
    if _is_dense(row):
        return [dict(_DENSE)], ""
    if method == "evit":
        return [{"base": "evit", "keep_rate": _matched(row, "keep_rate")}], ""
    if method not in ("gtp", "tome"):
        return [], _LEARNED if method == "dynamicvit" else _UNTOLD.format(method)
    count = int(row["P"] if "P" in row else _matched(row, "P"))
    if method == "tome":
        return [{"base": "tome", "r": target.count(count)}], ""
    cell = {"base": "gtp", "P": target.count(count), **_best_setting(name, count)}
    cell |= {key: row[key] for key in ("graph", "proportional_attention") if key in row}
    if row.get("theta") == "best":
        return [{**cell, "theta": theta} for theta in _THETAS], ""
    return [cell | ({"theta": float(row["theta"])} if "theta" in row else {})], ""


def _matched(row: Row, name: str) -> float:
    """A setting of the method at the GMACs of its group."""
    known = MATCHED[row["backbone"]]
    return known[name][known["gmacs"].index(row["gmacs_group"])]


def _best_setting(backbone: str, P: int) -> dict[str, float]:
    """The θ and α used for the paper's tables, as far as they are known.

    DeiT-B: the release notes. DeiT-S: θ = 0.6, for which the accuracies in Table 5 match Table 1 to
    0.1 points. Other models: the defaults.
    """
    for row in published_rows("release-notes", backbone):
        if row.get("P") == P:
            return {"theta": float(row.get("theta", 1)), "alpha": row["best_alpha"]}
    return {"theta": 0.6} if backbone == "DeiT-S" else {}


def _published(row: Row) -> dict[str, float]:
    found = {name: row[name] for name in ("top1", "gmacs") if name in row}
    if "gmacs_group" in row:
        found.setdefault("gmacs", row["gmacs_group"])
    rows = published_rows(None, row["backbone"])
    dense = next((r for r in rows if _is_dense(r) and "top1" in r), None)
    if dense is not None and not _is_dense(row):
        if "top1" in found:
            found["loss"] = round(found["top1"] - dense["top1"], 2)
        if "images_per_second" in row and "images_per_second" in dense:
            found["speedup"] = row["images_per_second"] / dense["images_per_second"]
    return found


def _is_dense(row: Row) -> bool:
    return row["method"] == "dense" or row.get("P") == 0


def _written(cell: Mapping[str, Any]) -> str:
    """A cell, written like a strategy on the command line."""
    told = ",".join(f"{name}={value}" for name, value in cell.items() if name != "base")
    return f"{cell['base']}:{told}" if told else str(cell["base"])


def _label(cell: Mapping[str, Any]) -> str:
    return _written(cell).replace("proportional_attention", "log_s")
