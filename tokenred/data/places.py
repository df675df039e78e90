"""Where data is: known names and paths, checked without opening anything."""

import os
from pathlib import Path

from tokenred.core.errors import DataError, did_you_mean, shown

NAMED = ("digits", "cifar10")
"""The datasets with a name, and with classes of their own."""

VARIABLE = "TOKENRED_DATA"
HOW = (
    "pass cifar10:PATH with an image folder, zip or tar of it (SPLIT/CLASS/IMAGE), or set "
    f"{VARIABLE} to the folder that holds cifar10-test.zip and cifar10-train.zip"
)


def check_there(source: str | os.PathLike[str]) -> str:
    """The source as text, if it is a known name or there is something at the path.

    Raises:
        DataError: if there is not.
    """
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        raise DataError(
            f"expected the name or path of a dataset, got {shown(source)}; known names: "
            f"{', '.join(NAMED)}."
        )
    text = os.fspath(source)
    if text.partition(":")[0] == "cifar10":
        place_of_cifar10(text.partition(":")[2])
    elif text not in NAMED and not Path(text).expanduser().exists():
        raise DataError(
            f"expected a dataset at {text}, found nothing.{did_you_mean(text, NAMED)} Pass an "
            f"image folder, a zip or a tar of one, or a known name: {', '.join(NAMED)}."
        )
    return text


def place_of_cifar10(path: str) -> Path:
    """Where CIFAR-10 should be: a folder or an archive, or the folder that has its archives."""
    folder = path or os.environ.get(VARIABLE)
    if not folder:
        raise DataError(f"expected the location of CIFAR-10, got nothing; {HOW}.")
    given = Path(folder).expanduser()
    if path and not given.exists():
        raise DataError(f"expected CIFAR-10 at {given}, found nothing; {HOW}.")
    return given
