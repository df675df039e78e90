"""Record tokenred's parts: version and code digest of each, and its name for type checkers.

Run ``python scripts/part_versions.py`` after adding or changing a part; if its results changed,
raise `version` in the class first. A test compares the record with the code.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenred.core.fingerprint import digest
from tokenred.core.registry import KINDS

NOTED = Path(__file__).resolve().parents[1] / "tests" / "strategies" / "part_versions.json"


def parts() -> Iterator[type]:
    """All registered classes of tokenred, and the classes of its own that they derive from."""
    made = [entry.make for registry in KINDS.values() for entry in registry]
    found = {base for cls in made if inspect.isclass(cls) for base in cls.__mro__}
    homes = ("tokenred.strategies.", "tokenred.graphs.", "tokenred.attention.")
    own = (cls for cls in found if cls.__module__.startswith(homes))
    yield from sorted(own, key=lambda cls: cls.__qualname__)


def said_by(cls: type) -> str:
    """A digest of the code in a class's file, without docstrings, annotations and imports."""
    return digest(repr(_told(ast.parse(inspect.getsource(sys.modules[cls.__module__])))))


def _told(node: Any) -> Any:
    if isinstance(node, list):
        return [_told(item) for item in node if not _is_silent(item)]
    if not isinstance(node, ast.AST):
        return node
    left_out = ("annotation", "returns", "type_params", "type_comment", "kind", "ctx")
    fields = ((name, _told(value)) for name, value in ast.iter_fields(node) if name not in left_out)
    # Newer versions of Python omit empty fields.
    return type(node).__name__, [(name, value) for name, value in fields if value not in (None, [])]


def _is_silent(node: Any) -> bool:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_text or isinstance(node, ast.Import | ast.ImportFrom)


def look() -> dict[str, tuple[int, str]]:
    """The version and the digest of each class, by name."""
    return {cls.__qualname__: (getattr(cls, "version", 1), said_by(cls)) for cls in parts()}


# The package of a kind of parts also has its registration functions.
_ABOVE = """# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

"""
_BELOW = """
_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
"""


def stubs() -> dict[Path, str]:
    """Stubs, for type checkers, of the packages that collect the parts in their files."""
    found = {}
    for folder in ("tokenred.strategies", *(kind.folder for kind in KINDS.values())):
        package = importlib.import_module(folder)
        homes = {name: getattr(vars(package)[name], "__module__", "") for name in package.__all__}
        relative = {n: home.removeprefix(folder) for n, home in homes.items() if home}
        lines = sorted(f"from {home} import {n} as {n}\n" for n, home in relative.items())
        above, below = (_ABOVE, _BELOW) if hasattr(package, "register") else ("", "")
        found[Path(str(package.__file__)).with_suffix(".pyi")] = above + "".join(lines) + below
    return found


if __name__ == "__main__":
    NOTED.write_text(json.dumps(look(), indent=1) + "\n", encoding="utf-8")
    for path, text in stubs().items():
        path.write_text(text, encoding="utf-8")
