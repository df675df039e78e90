"""Parts for tokenred. Importing this package registers them; its entry point does just that."""

from tokenred_example.contrast import Contrast
from tokenred_example.recipe import contrast
from tokenred_example.spread import Spread
from tokenred_example.window import Window

__all__ = ["Contrast", "Spread", "Window", "contrast"]
