"""Train a plain ViT on CIFAR-10: ``python -m tokenred.training.cifar10 --data … --output FILE``.

``--preset patch2`` (256 image tokens and CLS) is meant for a GPU. ``--preset patch4 --init FILE``
goes on with smaller weights on a CPU. All images are held as pixels on the device and augmented
there. A killed run goes on with ``--resume`` after the last whole epoch.

Nothing is chosen by the test images: the result is the averaged model after the last epoch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from tokenred.core.errors import OutputExistsError
from tokenred.models.checkpoint_file import check_writable, read_checkpoint, save_checkpoint
from tokenred.strategies.specs import read_assignment
from tokenred.training.cifar10_loop import Cifar10Training, accuracy, load_pixels
from tokenred.training.cifar10_recipe import (
    CIFAR10_PREPROCESSING,
    CIFAR10_RECIPES,
    Cifar10Recipe,
)
from tokenred.training.devices import OneDevice
from tokenred.training.logs import Log
from tokenred.training.state import check_same_run, read_state, write_state

__all__ = ["main"]


def _run(options: argparse.Namespace, recipe: Cifar10Recipe) -> None:
    output: Path = check_writable(options.output, overwrite=options.overwrite or options.resume)
    work = output.with_suffix("")  # state.pt and log.csv of this run
    state = work / "state.pt"
    if state.exists() and not (options.resume or options.overwrite):
        raise OutputExistsError(f"{work} holds a run already; pass --resume or --overwrite.")
    init = None if options.init is None else read_checkpoint(options.init)[0]
    device = OneDevice(options.device).device
    train = load_pixels(options.data, "train", device)
    test = load_pixels(options.test, "test", device)
    training = Cifar10Training(recipe, train, init)
    identity = asdict(recipe) | {"images": len(train[0]), "weights": training.began_from}
    rows: list[dict[str, float]] = []
    if options.resume and state.exists():
        saved = read_state(state)
        check_same_run(saved["identity"], identity, state)
        training.load_state_dict(saved)
        rows = saved["rows"]
    work.mkdir(exist_ok=True)
    log = Log(work)
    for number in range(len(rows), recipe.epochs):
        row = training.epoch(number)
        row["top1"] = accuracy(training.ema.module, test, training.augment)
        rows.append(row)
        write_state(state, {"identity": identity, "rows": rows, **training.state_dict()})
        log.write(rows)
        print(
            f"epoch {number + 1}/{recipe.epochs}: loss {row['loss']:.4f}, "
            f"top-1 {100 * row['top1']:.2f}%, {row['seconds']:.0f} s",
            flush=True,
        )
    halved = {name: value.half() for name, value in training.ema.module.state_dict().items()}
    training.ema.module.load_state_dict(halved)
    top1 = 100 * accuracy(training.ema.module, test, training.augment)
    metadata = {
        "config": recipe.config,
        "preprocessing": CIFAR10_PREPROCESSING,
        "top1": f"{top1:.2f}",
        "data": f"CIFAR-10: trained on {len(train[0])} images of train, top1 on {len(test[0])} "
        "of test",
        "recipe": asdict(recipe),
        "from": "random weights" if options.init is None else f"weights {training.began_from}",
        "command": "python -m tokenred.training.cifar10",
        "torch": torch.__version__,
        "license": "Apache-2.0",
    }
    save_checkpoint(output, halved, metadata, overwrite=True)
    print(f"{output}: top-1 {top1:.2f}% of {len(test[0])} test images")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from the command line and write the fp16 checkpoint.

    Args:
        arguments: the command line without the program; ``sys.argv`` by default.

    Raises:
        OutputExistsError: if there is a run already, and neither ``--resume`` nor
            ``--overwrite``.
        ConfigError: for settings out of range, or another run's state to resume.
        DataError: for images that are not CIFAR-10's.
    """
    parser = argparse.ArgumentParser(description="Train a plain ViT on CIFAR-10.")
    parser.add_argument("--data", default="", help="cifar10-train.zip, or a folder of it")
    parser.add_argument("--test", default="", help="cifar10-test.zip, or a folder of it")
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors to write")
    parser.add_argument("--preset", choices=CIFAR10_RECIPES, default="patch2")
    parser.add_argument("--init", type=Path, help="weights to go on with")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--resume", action="store_true", help="go on after a kill")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--device", help="cpu, cuda, …; a GPU where there is one")
    parser.add_argument("--threads", type=int, help="of the CPU")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    changes = {} if options.epochs is None else {"epochs": options.epochs}
    changes |= dict(read_assignment(text, "--set") for text in options.set)
    _run(options, CIFAR10_RECIPES[options.preset].replace(**changes))


if __name__ == "__main__":
    main()
