"""Fine-tuning against off-the-shelf on the embedded digits: the table of ``docs/finetuning.md``.

Run it again after a kill: finished runs are read, a run that was under way goes on.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from scipy.stats import t as student
from torch import nn

import tokenred as tr
from tokenred.analysis.specs import parse_spec
from tokenred.core.errors import UntrainedPartWarning
from tokenred.data import eval_transform, make_loader, open_dataset
from tokenred.models import load_model
from tokenred.training import finetune, settings_for

# Each at about 0.45 of the dense model's GMACs; IdleViT by its keep ratio.
METHODS = {"gtp": "gtp@0.45", "evit": "evit@0.45", "idlevit": "idlevit:keep_ratios=0.3"}


def accuracy(model: nn.Module) -> float:
    """The share of the 360 held-out digits that a model names rightly."""
    data = open_dataset("digits", transform=eval_transform(model))
    right = 0
    with torch.no_grad():
        for images, labels, _ in make_loader(data, 180):
            right += int((model(images).argmax(-1) == labels).sum())
    return right / len(data)


def interval(values: Sequence[float]) -> str:
    """Mean and 95% interval over seeds, Student's t, in percent."""
    mean = statistics.fmean(values)
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{100 * mean:.2f} ± {100 * half:.2f}"


def main() -> None:
    """Run what is not there yet and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("an interval needs at least 2 seeds")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UntrainedPartWarning)
    dense = tr.gmacs(load_model("digits"))
    print("| Method | GMACs | Off the shelf | Fine-tuned, 95% interval |")
    print("| --- | ---: | ---: | ---: |")
    print(f"| dense | {dense:.4f} (1.00) | {100 * accuracy(load_model('digits')):.2f} | |")
    for method in options.methods:
        plan = parse_spec(METHODS[method]).resolve(dense)
        shelf = tr.wrap(load_model("digits"), plan)
        tuned = []
        for seed in range(options.seeds):
            settings = settings_for(method, "digits").replace(epochs=options.epochs, seed=seed)
            run = finetune(
                load_model("digits"), plan, "digits",
                output=options.output / f"{method}-{seed}", settings=settings, resume=True,
            )  # fmt: skip
            tuned.append(run.top1)
        cost = shelf.cost().gmacs
        print(
            f"| `{METHODS[method]}` | {cost:.4f} ({cost / dense:.2f}) | "
            f"{100 * accuracy(shelf):.2f} | {interval(tuned)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
