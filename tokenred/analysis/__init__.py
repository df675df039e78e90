"""Analysis: measure accuracy and speed, compare strategies, draw the figures of a paper.

Everything here is loaded on first use, because importing pandas, SciPy and seaborn takes a while.
The names are listed in ``__init__.pyi``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
