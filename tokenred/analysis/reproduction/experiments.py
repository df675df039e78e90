"""The experiments of the GTP paper, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenred.core.errors import ConfigError, UnknownNameError

__all__ = ["BACKBONES", "EXPERIMENTS", "FINETUNE", "Backbone", "Experiment", "choose_experiments"]


@dataclass(frozen=True)
class Backbone:
    """A model of the paper.

    Attributes:
        name: as the paper calls it.
        spec: for `tokenred.models.load_model`.
        tokens, depth: image tokens and blocks.
        weights: where they are to be had, if not from timm.
        note: what to know when figures are compared.
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
        tables: of the published figures, whose rows are the cells.
        backbones: by the paper's names.
        axes: of the cells, where no figures are published.
        follow: strategies whose tokens are followed through the blocks, in place of accuracy.
        chart: ``"tradeoff"``, ``"scorers"``, ``"graphs"``, ``"theta"``, ``"heat_map"`` or
            ``"smoothing"``.
        judged: whether its rows are set beside the published ones; not where another experiment
            does that already.
        program: run as the authors' program, where it departs from the paper.
        note: what to know when figures are compared.
        owed: what cannot be run off the shelf, with the command that would make the weights.
    """

    name: str
    title: str
    tables: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ("DeiT-S",)
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    follow: tuple[str, ...] = ()
    chart: str = "tradeoff"
    judged: bool = True
    program: bool = False
    note: str = ""
    owed: tuple[tuple[str, str], ...] = ()


BACKBONES = {
    backbone.name: backbone
    for backbone in (
        Backbone("DeiT-S", "deit_small_patch16_224.fb_in1k"),
        Backbone("DeiT-B", "deit_base_patch16_224.fb_in1k"),
        Backbone("LV-ViT-S", "lvvit_s", depth=16, weights="lvvit_s-26M-224-83.3.pth.tar"),
        Backbone("LV-ViT-M", "lvvit_m", depth=20, weights="lvvit_m-56M-224-84.0.pth.tar"),
        Backbone(
            "ViT-B-Patch8", "vit_base_patch8_224.augreg_in21k_ft_in1k", tokens=784,
            note="The paper does not say which weights; these have its dense accuracy.",
        ),
        Backbone(
            "ViT-Medium-GAP", "vit_medium_patch16_gap_256.sw_in12k_ft_in1k", tokens=256,
            note="The crop of the images in the paper is not known, and moves all accuracies "
            "alike; the differences from dense are the better comparison.",
        ),
    )
}  # fmt: skip

FINETUNE = (
    "tokenred finetune --model {spec} --strategy {strategy} --data IMAGENET --preset paper "
    "--output FOLDER"
)
_FIGURE6 = FINETUNE.format(spec="deit_small_patch16_224.fb_in1k", strategy="gtp:P=8")
_BUDGETS = (4, 8, 11, 14)

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "figure1", "Accuracy against GMACs, the methods side by side (Fig. 1)",
            tables=("1", "2", "3"), backbones=("DeiT-S", "DeiT-B"), judged=False,
            note="Drawn from the cells of tables 1 to 3, whose rows are judged there.",
        ),
        Experiment(
            "table1", "GTP at every budget, off the shelf (Table 1)", tables=("1",),
            backbones=("DeiT-S", "DeiT-B", "LV-ViT-S", "LV-ViT-M"),
        ),
        Experiment(
            "table2", "The methods at the same GMACs on DeiT-S (Table 2)", tables=("2",),
        ),
        Experiment(
            "table3", "The methods at the same GMACs on DeiT-B (Table 3)", tables=("3",),
            backbones=("DeiT-B",),
        ),
        Experiment(
            "figure5", "Scorers (Fig. 5)", chart="scorers",
            axes={
                "scorer": ("MixedAttn", "DiagAttn", "BroadAttn", "CLSAttn", "CosSim", "Random"),
                "P": _BUDGETS,
            },
            note="The figure's values are not printed.",
        ),
        Experiment(
            "table4", "Types of graph (Table 4)", tables=("4",), backbones=("DeiT-S", "DeiT-B"),
            chart="graphs",
        ),
        Experiment(
            "table5", "Share of attention kept, and proportional attention (Table 5)",
            tables=("5",), backbones=("DeiT-S", "DeiT-B"), chart="theta",
        ),
        Experiment(
            "figure6", "How alike the tokens are, block by block (Fig. 6)", chart="smoothing",
            follow=("gtp", "gtp:theta=0.6", "topk", "tome", "evit"),
            note="Every strategy at 0.75 of the dense model's GMACs. The paper's figure is of "
            "fine-tuned weights and its values are not printed; this is off the shelf.",
            owed=(("the same with weights fine-tuned for 30 epochs", _FIGURE6),),
        ),
        Experiment(
            "table6", "785 tokens (Table 6)", tables=("6",), backbones=("ViT-B-Patch8",),
        ),
        Experiment(
            "table7", "No CLS token, 256 tokens (Table 7)", tables=("7",),
            backbones=("ViT-Medium-GAP",),
        ),
        Experiment(
            "appendix", "Propagation α and semantic neighbours M (appendix)", chart="heat_map",
            axes={"alpha": (0.05, 0.1, 0.2, 0.3, 0.4), "M": (2, 4, 8, 16), "P": (8,)},
            note="The values are not among the published ones known here.",
        ),
        Experiment(
            "release-notes", "The authors' best settings for each P on DeiT-B",
            tables=("release-notes",), backbones=("DeiT-B",), program=True,
        ),
    )
}  # fmt: skip


def choose_experiments(names: tuple[str, ...] | list[str] | None) -> list[Experiment]:
    """Experiments by name, in the paper's order; all without a name.

    Raises:
        UnknownNameError: for a name that is none.
        ConfigError: for an empty list.
    """
    if names is None:
        return list(EXPERIMENTS.values())
    if not names:
        raise ConfigError("expected the name of an experiment, got none; leave the list out.")
    folded = {str(name).casefold().replace(" ", "") for name in names}
    for name in sorted(folded - set(EXPERIMENTS)):
        raise UnknownNameError.of("experiment", name, EXPERIMENTS)
    return [experiment for name, experiment in EXPERIMENTS.items() if name in folded]
