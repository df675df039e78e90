# The public names, each once: read by type checkers, and by lazy_loader at run time.
from .dataset import SKIPPED_LABEL as SKIPPED_LABEL
from .dataset import ImageDataset as ImageDataset
from .dataset import balanced_subset as balanced_subset
from .dataset import make_loader as make_loader
from .open import open_dataset as open_dataset
from .transforms import CIFAR10_MEAN as CIFAR10_MEAN
from .transforms import CIFAR10_STD as CIFAR10_STD
from .transforms import eval_transform as eval_transform
