"""Imports run one way, and importing tokenred is cheap."""

from __future__ import annotations

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


def _at_import(path: Path) -> set[str]:
    """Modules imported when the file is, annotations and function bodies left out."""
    found: set[str] = set()
    pending: list[ast.AST] = list(ast.parse(path.read_text()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        else:
            pending += list(ast.iter_child_nodes(node))
    return found


@pytest.mark.parametrize("path", FILES, ids=_module)
def test_only_some_import_timm(path: Path) -> None:
    area = path.relative_to(PACKAGE).parts[0]
    if area not in TIMM:
        names = {
            n.name
            for w in ast.walk(ast.parse(path.read_text()))
            if isinstance(w, ast.Import)
            for n in w.names
        }
        names |= {
            w.module or ""
            for w in ast.walk(ast.parse(path.read_text()))
            if isinstance(w, ast.ImportFrom)
        }
        assert not {n for n in names if n.split(".")[0] == "timm"}


def test_no_circles() -> None:
    modules = {_module(path): path for path in FILES}
    uses = {
        name: {m for m in _at_import(path) if m in modules and m != name}
        for name, path in modules.items()
    }
    # A package's __init__ gathers what lies in it; that is no dependency of the parts.
    uses = {name: {m for m in used if not name.startswith(f"{m}.")} for name, used in uses.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path[path.index(name) :], name))
        if name not in done:
            for used in sorted(uses[name]):
                visit(used, (*path, name))
            done.add(name)

    for name in sorted(modules):
        visit(name, ())


def test_parts_do_not_reach_up() -> None:
    for path in FILES:
        area = path.relative_to(PACKAGE).parts[0]
        above = {"analysis", "cli", "training", "testing", "export"}
        if area in above or path.parent == PACKAGE:
            continue
        reached = {m.split(".")[1] for m in _at_import(path) if m.startswith("tokenred.")}
        assert not reached & above, f"{_module(path)} imports {reached & above}"


def test_importing_tokenred_is_light() -> None:
    program = (
        "import sys, tokenred; from tokenred import wrap, strategy; strategy('gtp');"
        "print([m for m in ('seaborn', 'networkx', 'ray', 'pandas', 'matplotlib', 'hypothesis')"
        " if m in sys.modules])"
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
