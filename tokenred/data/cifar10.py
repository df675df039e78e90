"""Find CIFAR-10 on this machine: it is too big to embed and never downloaded."""

from __future__ import annotations

import os
from pathlib import Path

from tokenred.core.errors import DataError

__all__ = ["CIFAR10_CLASSES", "CIFAR10_MEAN", "CIFAR10_STD", "DATA_VARIABLE", "find_cifar10"]

DATA_VARIABLE = "TOKENRED_DATA"
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
# Of the training pixels, on the scale 0..1; in common use.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)

_HOW = (
    "pass cifar10:PATH with an image folder, zip or tar of it (SPLIT/CLASS/IMAGE), or set "
    f"{DATA_VARIABLE} to the folder that holds cifar10-test.zip and cifar10-train.zip"
)


def find_cifar10(path: str, split: str) -> Path:
    """Find the folder or archive of a split of CIFAR-10.

    Args:
        path: given by the user, or empty to look in the folder that the environment variable
            ``TOKENRED_DATA`` names.
        split: ``"test"`` or ``"train"``.

    Returns:
        An image folder or an archive of one.

    Raises:
        DataError: if it is missing, or there is no such split.
    """
    if split not in ("test", "train"):
        raise DataError(f"cifar10 has the splits test and train, got {split!r}; use one of them.")
    if path:
        given = Path(path).expanduser()
        if not given.exists():
            raise DataError(f"expected CIFAR-10 at {given}, found nothing; {_HOW}.")
        return (_inside(given, split) or given) if given.is_dir() else given
    variable = os.environ.get(DATA_VARIABLE)
    if not variable:
        raise DataError(f"expected the location of CIFAR-10, got nothing; {_HOW}.")
    found = _inside(Path(variable).expanduser(), split)
    if found is None:
        raise DataError(
            f"expected cifar10-{split}.zip, cifar10-{split} or cifar10 in {variable} (from "
            f"{DATA_VARIABLE}), found none; {_HOW}."
        )
    return found


def _inside(folder: Path, split: str) -> Path | None:
    stems = (f"cifar10-{split}", "cifar10")
    names = [stem + suffix for stem in stems for suffix in (".zip", "", ".tar", ".tar.gz")]
    return next((folder / name for name in names if (folder / name).exists()), None)
