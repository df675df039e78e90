"""Experiments with results that are known."""

from typing import Any

from tokenred.analysis.reproduction.experiments import BACKBONES, EXPERIMENTS, Target, claims_of
from tokenred.analysis.reproduction.judge import Part, part_of_cells

IMAGES = 50_000


def make_part(
    name: str,
    *,
    own: bool = True,
    off: float = 0.0,
    finished: int | None = None,
    images: int = IMAGES,
    **more: Any,
) -> Part:
    """An experiment on its first backbone, or on another model in its place.

    Args:
        name: of the experiment.
        own: on the paper's model, whose every cell has the published figures.
        off: so many points of accuracy more.
        finished: so many cells have an accuracy; None for all.
        images: that were run.
        more: columns of every record.
    """
    experiment = EXPERIMENTS[name]
    backbone = experiment.backbones[0]
    model = {"spec": BACKBONES[backbone].spec}
    target = Target(backbone, backbone, model) if own else Target("mine", backbone, {}, 64, 8)
    claims = claims_of(experiment, target)
    records, count = [], 0
    for claim in claims:
        rows = []
        for place, cell in enumerate(claim.cells):
            count += 1
            row = {**cell, "model": "m", "data": "d", "weights": "w", "dtype": "float32", "seed": 0,
                   "images": IMAGES, "method": cell["base"], "key": str(count), "status": "done",
                   "strategy": str(count)}  # fmt: skip
            row["gmacs"] = claim.published.get("gmacs", 1 + count / 50)
            if finished is None or count <= finished:
                # Of several cells the best counts.
                row["top1"] = claim.published.get("top1", 70 + count % 7) + off - place
                if "loss" in claim.published:
                    gap = claim.published["loss"] + off - place
                    row |= {
                        "difference": gap,
                        "difference_low": gap - 1,
                        "difference_high": gap + 1,
                    }
            rows.append(row | more)
        records.append(tuple(rows))
    return part_of_cells(experiment, target, claims, records, images)
