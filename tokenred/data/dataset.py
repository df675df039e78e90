"""Datasets of labelled images, their loaders in batches, and balanced subsets."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from tokenred.core.errors import DataError
from tokenred.core.values import Count, Size, checked
from tokenred.data.sources import ImageSource

SKIPPED_LABEL = -1
_BLANK_SIDE = 32
Item = tuple[Tensor, int, int]


class ImageDataset(Dataset[Item]):
    """Labelled images, converted to RGB.

    An unreadable image does not stop a run: it becomes zeros with the label ``SKIPPED_LABEL`` (-1),
    in data-loader workers too. Evaluation loops drop those rows and report ``name_of(index)`` and
    ``why_unreadable(index)`` for each.

    Args:
        source: names and opens the images.
        labels: the class index of each image.
        classes: the class names by index.
        name: name of the data, for reports.
        transform: maps an RGB image to a tensor, of the same shape for all images; by default the
            image's own pixels (3, height, width) in 0..1. It may be replaced at any time before a
            loader is iterated.
        left_out: number of files in the source that are not images, by kind.

    Raises:
        DataError: if there is no image, or the number of labels differs.
    """

    def __init__(
        self,
        source: ImageSource,
        labels: Sequence[int],
        classes: Sequence[str],
        name: str,
        transform: Callable[[Image.Image], Tensor] | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        if len(source) == 0 or len(labels) != len(source):
            raise DataError(
                f"expected images with one label each in {name}, got {len(source)} images and "
                f"{len(labels)} labels; check the source."
            )
        self.source = source
        self.labels = tuple(labels)
        self.classes = tuple(classes)
        self.name = name
        self.transform = transform
        self.left_out = dict(left_out or {})

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        more = f", left_out={self.left_out}" if self.left_out else ""
        return f"ImageDataset({self.name!r}, images={len(self)}, classes={len(self.classes)}{more})"

    def __getitem__(self, index: int) -> Item:
        """Return the transformed image (3, height, width), its label, and its index from 0.

        The label of an unreadable image is -1; a negative index counts from the end.

        Raises:
            IndexError: if there is no such image.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)} in {self.name}, got {index}")
        index %= len(self)
        try:
            image = self.source.image(index)
        except Exception:  # Decoders raise nearly anything on a corrupt file.
            blank = self._to_tensor(Image.new("RGB", (_BLANK_SIDE, _BLANK_SIDE)))
            return torch.zeros_like(blank), SKIPPED_LABEL, index
        return self._to_tensor(image), self.labels[index], index

    def _to_tensor(self, image: Image.Image) -> Tensor:
        from torchvision.transforms.functional import to_tensor

        made: Tensor = to_tensor(image) if self.transform is None else self.transform(image)
        return made

    def name_of(self, index: int) -> str:
        """Return the image's name, such as its path in the folder or archive."""
        return self.source.name(index)

    def why_unreadable(self, index: int) -> str | None:
        """Read an image again and return the reason why it fails, or None if it does not."""
        try:
            self.source.image(index)
        except Exception as error:  # As in __getitem__.
            # Pillow includes the repr of the object it read from, whose address changes.
            reason = re.sub(r"<(\S+) object at 0x[0-9a-f]+>", r"\1", str(error))
            return f"{type(error).__name__}: {reason}"
        return None


@checked
def make_loader(
    dataset: ImageDataset,
    batch_size: Size,
    workers: Count = 0,
    limit: Size | None = None,
    seed: Count = 0,
) -> DataLoader[Item]:
    """Create a loader that gives the same batches in the same order every time.

    Args:
        dataset: its transform must give all images the same shape.
        batch_size: images in a batch; the last one may be smaller.
        workers: number of loading processes; 0 loads in this process.
        limit: maximum number of images, chosen by ``balanced_subset``; None for all.
        seed: of the choice.

    Returns:
        A loader of (images (b, 3, height, width), labels (b,), indices (b,)); the indices are
        those of ``dataset``, and a label of -1 marks an unreadable image.

    """
    chosen: Dataset[Item] = dataset
    if limit is not None:
        chosen = Subset(dataset, balanced_subset(dataset, limit, seed))
    return DataLoader(
        chosen,
        batch_size=batch_size,
        shuffle=False,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # A separate generator, so that iterating does not change the caller's random state.
        generator=torch.Generator().manual_seed(seed),
    )


@checked
def balanced_subset(dataset: ImageDataset, limit: Size, seed: Count = 0) -> list[int]:
    """Choose a fixed random subset, as balanced over the classes as possible.

    The choice depends only on the names of the images and the seed, not on their order, and the
    subset for a smaller limit is contained in the subset for a larger one.

    Returns:
        The indices, ascending; all if there are no more than ``limit``.
    """
    if limit >= len(dataset):
        return list(range(len(dataset)))
    seen: Counter[int] = Counter()
    ranked = []
    for index in sorted(range(len(dataset)), key=lambda i: _draw(seed, dataset.name_of(i))):
        label = dataset.labels[index]
        # One of each class, then a second of each, and so on.
        ranked.append((seen[label], _draw(seed, f"class {label}"), index))
        seen[label] += 1
    return sorted(index for _, _, index in sorted(ranked)[:limit])


def _draw(seed: int, name: str) -> bytes:
    # The names of files need not be UTF-8.
    return blake2b(f"{seed}:{name}".encode(errors="surrogatepass"), digest_size=8).digest()
