"""What functions declare, read from their source: importing them would import PyTorch.

That takes seconds, and a mistake in a command should be told at once.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import re
import typing
from collections import abc
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import annotated_types

from tokenred.core import values

_REGISTERED = re.compile(
    r'^@\w+\.register\("([^"]+)"\)\n(?:@.*\n)*(?:def|class) (\w+)', re.MULTILINE
)
_MODEL = re.compile(r"^@register_model.*\n(?:@.*\n)*def (\w+)", re.MULTILINE)
_ABOVE = Path(__file__).parents[2]  # the package's folder


class _Unknown(type):
    """The type of a class that is not imported; values of it cannot be written as text."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, _: Any) -> Any:
        return cls

    def __call__(cls, *_: Any, **__: Any) -> Any:
        return cls


class _Names(dict[str, Any]):
    """What the annotations and defaults of a module are made of."""

    def __init__(self, module: str) -> None:
        super().__init__(_KNOWN)
        self.module = module

    def __missing__(self, name: str) -> Any:
        self[name] = _meaning(self.module, name)
        return self[name]


def _meaning(module: str, name: str) -> Any:
    """What a name of a module means: of aliases and plain functions, what they are."""
    try:
        home, node = _defined(module, name)
    except (LookupError, StopIteration):  # not one of ours
        return _Unknown(name, (), {})
    names = _Names(home)
    if isinstance(node, ast.Assign):
        return eval(compile(ast.Expression(node.value), home, "eval", dont_inherit=True), names)
    if isinstance(node, ast.FunctionDef) and not node.decorator_list:
        exec(compile(ast.Module([node], []), home, "exec", dont_inherit=True), names)
        return names[name]
    return _Unknown(name, (), {})


_KNOWN = {"Path": Path}
for _module in (builtins, abc, typing, annotated_types, values):
    _KNOWN |= vars(_module)


@cache
def declared(place: str) -> Callable[..., Any]:
    """A function, method or dataclass without what it does: its parameters and its docstring.

    Args:
        place: module and name, as in ``tokenred.analysis:Grid.run``; modules may import the name.
    """
    module, _, name = place.partition(":")
    outer, *inner = name.split(".")
    home, node = _defined(module, outer)
    for each in inner:
        node = next(n for n in getattr(node, "body", ()) if getattr(n, "name", "") == each)
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    about = ast.Expr(ast.Constant(ast.get_docstring(node) or ""))
    taken = node.args if isinstance(node, ast.FunctionDef) else _fields(home, node)
    bare = ast.Module([ast.FunctionDef("bare", taken, [about], [])], [])
    names = _Names(home)
    code = compile(ast.fix_missing_locations(bare), module, "exec", dont_inherit=True)
    exec(code, {}, names)
    found: Callable[..., Any] = names["bare"]
    return found


@cache
def models_of(package: str) -> tuple[frozenset[str], str]:
    """The models that timm or tokenred registers, and the source of its modules."""
    found = importlib.util.find_spec(package)
    folders = [Path(place) for place in found.submodule_search_locations or ()] if found else []
    files = [file for folder in folders for file in folder.glob("models/*.py")]
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return frozenset(_MODEL.findall(source)), source


@cache
def registered(folder: str) -> dict[str, str]:
    """The names that the files of a package register, and where each is, as for `declared`."""
    found = {}
    for file in sorted(_ABOVE.joinpath(*folder.split(".")).rglob("*.py")):
        module = ".".join(file.relative_to(_ABOVE).with_suffix("").parts)
        for name, defined in _REGISTERED.findall(file.read_text(encoding="utf-8")):
            found[name] = f"{module}:{defined}"
    return found


def _fields(module: str, node: ast.ClassDef) -> ast.arguments:
    """Those of a dataclass and its bases, as arguments."""
    found = _fields_of(module, node).items()
    taken = [ast.arg(name, field.annotation) for name, field in found]
    return ast.arguments([], [], None, taken, [field.value for _, field in found], None, [])


def _fields_of(module: str, node: ast.AST) -> dict[str, ast.AnnAssign]:
    if not isinstance(node, ast.ClassDef):
        return {}
    found = dict[str, ast.AnnAssign]()
    for base in node.bases:
        with suppress(LookupError, StopIteration):  # not one of ours
            found |= _fields_of(*_defined(module, ast.unparse(base).partition("[")[0]))
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and "ClassVar" not in ast.unparse(each.annotation):
            name = ast.unparse(each.target)
            found |= {} if name.startswith("_") else {name: each}
    return found


@cache
def _defined(module: str, name: str) -> tuple[str, ast.AST]:
    """The module that defines a name, or where a module imports it from; and its definition."""
    if module.partition(".")[0] != "tokenred":  # installed beside ours, they would be found
        raise LookupError(f"{module} is not one of ours")
    place = _ABOVE.joinpath(*module.split("."))
    files = (place / "__init__.pyi", place / "__init__.py", place.with_name(f"{place.name}.py"))
    file = next(file for file in files if file.is_file())
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else ()
        if name in (getattr(node, "name", ""), *(getattr(each, "id", "") for each in targets)):
            return module, node
        if isinstance(node, ast.ImportFrom) and name in [each.name for each in node.names]:
            return _defined(f"{module}.{node.module}" if node.level else str(node.module), name)
    raise LookupError(f"{module} has no {name}")
