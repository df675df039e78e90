"""Fine-tuned versus off the shelf on the bundled digits: the table of ``docs/finetuning.md``.

Can be run again after a kill: finished runs are read, and an interrupted run is resumed.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from scipy.stats import t as student
from torch import Tensor, nn

import tokenred as tr
from tokenred.core.errors import UntrainedPartWarning
from tokenred.data import eval_transform, make_loader, open_dataset
from tokenred.models import load_model
from tokenred.strategies.specs import parse_spec
from tokenred.strategies.strategy import Strategy
from tokenred.training import finetune, settings_for

# Shares of the dense model's GMACs. IdleViT loses almost nothing at 0.35 and cannot go below 0.27.
SHARES = {"gtp": 0.35, "evit": 0.35, "idlevit": 0.28, "dynamicvit": 0.35}


def at_share(method: str, dense: float) -> Strategy:
    """A method at its share of the dense model's GMACs, or just below.

    With 64 tokens, GTP's even schedule cannot go below 0.49, so it removes tokens at the quarters
    of the depth here, as EViT does. DynamicViT's predictors need bounded gradients in so small a
    model.
    """
    share = SHARES[method]
    if method == "gtp":
        return tr.strategy("gtp").replace(schedule=tr.Budget(share * dense, tr.KeepRatio()))
    more = ":gradient_limit=0.02" if method == "dynamicvit" else ""
    return parse_spec(f"{method}{more}@{share}").resolve(dense)


def right(model: nn.Module) -> Tensor:
    """Which of the 360 held-out digits a model classifies correctly, as 0 and 1."""
    data = open_dataset("digits", transform=eval_transform(model))
    model.eval()
    with torch.no_grad():
        batches = [
            (model(images).argmax(-1) == labels) for images, labels, _ in make_loader(data, 180)
        ]
    return torch.cat(batches).double()


def interval(values: Sequence[float]) -> str:
    """Mean and 95% interval (Student's t) in percent; only the mean if all values are equal."""
    count = len(values)
    if min(values) == max(values):
        return f"{100 * values[0]:.2f}"
    half = student.ppf(0.975, count - 1) * statistics.stdev(values) / count**0.5
    return f"{100 * statistics.fmean(values):.2f} ± {100 * half:.2f}"


def over_seeds(rights: Sequence[Tensor]) -> str:
    """The interval of the accuracies of several runs."""
    return interval([float(each.mean()) for each in rights])


def main() -> None:
    """Run what is missing and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--methods", nargs="+", choices=SHARES, default=list(SHARES))
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("an interval needs at least 2 seeds")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UntrainedPartWarning)
    dense = tr.gmacs(load_model("digits"))
    print("| Method | GMACs | Off the shelf | Fine-tuned | Gain |")
    print("| --- | ---: | ---: | ---: | ---: |")
    top1 = 100 * float(right(load_model("digits")).mean())
    print(f"| dense | {dense:.4f} (1.00) | {top1:.2f} | | |", flush=True)
    for method in options.methods:
        plan = at_share(method, dense)
        before, after = [], []
        for seed in range(options.seeds):
            torch.manual_seed(seed)  # learned parts are random off the shelf
            shelf = tr.wrap(load_model("digits"), plan)
            before.append(right(shelf))
            settings = settings_for(method, "digits").replace(epochs=options.epochs, seed=seed)
            run = finetune(
                load_model("digits"), plan, "digits",
                output=options.output / f"{method}-{seed}", settings=settings, resume=True,
            )  # fmt: skip
            after.append(right(run.model))
        gain = torch.stack(after).mean(0) - torch.stack(before).mean(0)
        cost = shelf.cost().gmacs
        print(
            f"| `{method}` | {cost:.4f} ({cost / dense:.2f}) | {over_seeds(before)} | "
            f"{over_seeds(after)} | {interval(gain.tolist())} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
