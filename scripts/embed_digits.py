"""Write ``tokenred/data/digits.npz`` from scikit-learn's handwritten digits.

For maintainers: this script needs scikit-learn, the library itself does not.
Run ``python scripts/embed_digits.py`` from the root of the checkout.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TEST_SIZE = 360
SEED = 0
TARGET = Path(__file__).resolve().parent.parent / "tokenred" / "data" / "digits.npz"


def embed(target: Path) -> None:
    """Write the fixed stratified split (1437 train, 360 test) as uint8 arrays.

    Args:
        target: the ``.npz`` file to write; an existing file is replaced.
    """
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images.reshape(-1, 8, 8).astype(np.uint8),
        labels.astype(np.uint8),
        test_size=TEST_SIZE,
        stratify=labels,
        random_state=SEED,
    )
    np.savez_compressed(target, train_x=train_x, train_y=train_y, test_x=test_x, test_y=test_y)


def main() -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=TARGET, help="file to write")
    out = parser.parse_args().out
    embed(out)
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
