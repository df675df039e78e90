"""Imports run one way, and importing tokenred is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tokenred

PACKAGE = Path(tokenred.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What may import timm: the adapters, and what deals in models, data and training.
TIMM = {"backbones", "models", "data", "training"}


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> set[str]:
    """All that a file imports, in function bodies and for type checkers too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            # ``from package import module`` imports the module, and so does a name out of one.
            found |= {name if name in MODULES else node.module for name in names}
    return found


MODULES = {_module(path): path for path in FILES}
USES = {name: _imports(path) for name, path in MODULES.items()}
# What stands on what; beside each other those of one line.
ORDER = (
    ("core",),
    ("graphs", "attention"),
    ("strategies", "backbones"),
    ("reduced", "models", "data"),
    ("training", "testing"),
    ("analysis",),
    ("cli", "export"),
)
LEVEL = {folder: level for level, folders in enumerate(ORDER) for folder in folders}


def _folder(module: str) -> str:
    return module.split(".")[1] if module.startswith("tokenred.") else ""


def test_only_some_import_timm() -> None:
    found = {name for name, used in USES.items() if any(m.split(".")[0] == "timm" for m in used)}
    assert {_folder(name) for name in found} <= TIMM


def test_folders_stand_on_each_other() -> None:
    arrows = {
        (name, used)
        for name, targets in USES.items()
        for used in targets
        if _folder(name) in LEVEL and _folder(used) in LEVEL and _folder(name) != _folder(used)
    }
    up = {f"{a} → {b}" for a, b in arrows if LEVEL[_folder(a)] < LEVEL[_folder(b)]}
    assert not up
    beside = {(_folder(a), _folder(b)) for a, b in arrows}
    assert not {(a, b) for a, b in beside if LEVEL[a] == LEVEL[b] and (b, a) in beside}
    # The ground knows nobody.
    assert all(not _folder(b) or _folder(b) == "core" for a, b in arrows if _folder(a) == "core")


def test_no_circles() -> None:
    # A package's __init__ gathers what lies in it; that is no dependency of the parts.
    files = {name for name, path in MODULES.items() if path.name != "__init__.py"}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path[path.index(name) :], name))
        if name not in done:
            for used in sorted(USES[name] & files - {name}):
                visit(used, (*path, name))
            done.add(name)

    for name in sorted(files):
        visit(name, ())


def test_importing_tokenred_is_light() -> None:
    program = (
        "import sys, tokenred.attention; found = [m for m in ('triton',) if m in sys.modules];"
        "from tokenred import wrap, strategy; strategy('gtp');"
        "heavy = ('seaborn', 'networkx', 'ray', 'pandas', 'matplotlib', 'hypothesis');"
        "print(found + [m for m in heavy if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in tokenred.__all__:
        assert getattr(tokenred, name) is not None
    assert len(tokenred.__all__) <= 45
    assert set(tokenred.__all__) <= set(dir(tokenred))
    with pytest.raises(AttributeError, match="nothing"):
        tokenred.nothing  # noqa: B018
    with pytest.raises(AttributeError, match=r"Did you mean tokenred\.analysis\.compare\?"):
        tokenred.compare  # noqa: B018
    with pytest.raises(AttributeError, match=r"Did you mean tokenred\.models\.load_model\?"):
        tokenred.load_model  # noqa: B018
    with pytest.raises(AttributeError, match=r"Did you mean tokenred\.schedules\.register\?"):
        tokenred.register_schedule  # noqa: B018
    with pytest.raises(AttributeError, match=r"Did you mean wrap\?"):
        tokenred.warp  # noqa: B018
