"""tokenred: token-reduction strategies for vision transformers, composed of parts, and fast.

Three lines make a timm model faster::

    import timm, tokenred as tr
    vit = timm.create_model("deit_small_patch16_224", pretrained=True).eval()
    fast = tr.wrap(vit, tr.strategy("gtp", P=8))

Everything here is loaded on first use. The names are listed in ``__init__.pyi``.
"""

import importlib
import sys
from difflib import get_close_matches
from typing import Any

import lazy_loader

from tokenred._version import __version__
from tokenred.core import errors as errors

_load, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Packages are found here, too, but ``from tokenred import *`` should not define `data` or
# `models` in a user's program.
_PACKAGES = {
    "analysis", "attention", "backbones", "data", "embeddings", "errors", "export", "fusers",
    "graphs", "models", "recipes", "routers", "schedules", "score_mods", "scorers", "selectors",
    "strategies", "testing", "training",
}  # fmt: skip
__all__ = ["__version__", *(name for name in __all__ if name not in _PACKAGES)]


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except AttributeError:
        if name.startswith("_"):
            raise
        from tokenred.core.registry import KINDS  # not above: it is not cheap

        verb, _, kind = name.partition("_")
        verb = {"list": "names"}.get(verb, verb)
        named = [r for r in KINDS.values() if kind in (r.kind.replace(" ", "_"), r.plural)]
        own = [f"tokenred.{r.plural}.{verb}" for r in named if verb in ("register", "names")]
        homes = (_load(home) for home in ("analysis", *sorted(_PACKAGES - {"export"})))
        places = [home.__name__ for home in homes if name in getattr(home, "__all__", ())]
        close = (
            own or [f"{home}.{name}" for home in places] or get_close_matches(name, __dir__(), n=1)
        )
        hint = f" Did you mean {close[0]}?" if close else ""
        raise AttributeError(f"tokenred has no attribute {name}.{hint}", name=name) from None


def __dir__() -> list[str]:
    return sorted({*__all__, *_PACKAGES})


# So that `timm.create_model("lvvit_s")` works. timm takes seconds to import; if it is imported
# after tokenred, it knows LV-ViT from the first use of `tokenred.models`, `tokenred.wrap` or the
# command.
if "timm" in sys.modules:
    importlib.import_module("tokenred.models")
