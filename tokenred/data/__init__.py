"""Data: datasets for evaluation, data loaders, and the preprocessing of models.

Loaded on first use: the command line asks where data is without PyTorch. The names are listed in
``__init__.pyi``.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
