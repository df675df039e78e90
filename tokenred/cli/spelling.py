"""Misspelt options, refused before a command's libraries are imported.

Importing a command imports PyTorch, which takes seconds. Here its options are read from source:
those that it declares, and the parameters of the functions that it passes to `options_of`. Not all
of these are options, so what passes here may still be refused by the parser.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from tokenred.cli.importing import OPTION

_ABOVE = Path(__file__).parents[2]  # the package's folder
_EVERYWHERE = {"--help", "--version", "--traceback", OPTION}
# What other commands call it.
_ELSEWHERE = {"--base": "--strategy", "-s": "--base", "--strategy": "--base"}


def misspelt(words: Sequence[str], modules: Iterable[str]) -> str:
    """The message for a word that is an option of no command in these modules; else empty."""
    known = _EVERYWHERE.union(*map(options_in, modules))
    for word in words:
        if word == "--":
            break
        name = word.partition("=")[0].replace("_", "-")
        other = _ELSEWHERE.get(name, "")
        asked = name.startswith("--") or other
        if asked and not {name, name.replace("--no-", "--", 1)} & known:
            close = [other] if other in known else difflib.get_close_matches(name, sorted(known), 1)
            return f"Unknown option: {word}.{''.join(f' Did you mean {c}?' for c in close)}"
    return ""


def options_in(module: str) -> set[str]:
    """The options of all commands in a module, such as ``--batch-size``."""
    written, parameters = set[str](), set[str]()
    for node in (*ast.walk(_source(module)), *_shared(module)):
        match node:
            case ast.Constant(value=str(text)) if text.startswith("-"):
                written |= set(re.findall("--?[a-z-]+", text))
            case ast.FunctionDef(name=name) if name.endswith("command"):
                parameters |= set(_parameters(node))
            case ast.ClassDef(name="ModelOptions"):
                parameters |= set(_parameters(node))
            case ast.Call(func=ast.Name("options_of"), args=functions, keywords=keywords):
                words = {str(each.arg): ast.literal_eval(each.value) for each in keywords}
                others = {*words.pop("leave_out", "").split(), *words}
                found = (each for given in functions for each in _meant(given, module))
                parameters |= {name for each in found for name in _parameters(each)} - others
    return written | {f"--{name.replace('_', '-')}" for name in parameters}


def _shared(module: str) -> Iterator[ast.AST]:
    """The options of several commands, without those that this module does not import."""
    used = {n.id for n in ast.walk(_source(module)) if isinstance(n, ast.Name)}
    for node in _source("tokenred.cli.options").body:
        match node:
            case ast.Assign(targets=[ast.Name(name)]) if name not in used:
                continue
        yield from ast.walk(node)


def _parameters(node: ast.AST) -> Iterator[str]:
    """Those of a function, or the fields of a dataclass."""
    for each in ast.walk(node.args) if isinstance(node, ast.FunctionDef) else ():
        if isinstance(each, ast.arg):
            yield each.arg
    for each in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(each, ast.AnnAssign):
            yield ast.unparse(each.target)


def _meant(given: ast.expr, module: str) -> list[ast.AST]:
    """The function or class of this name; for a variable, all functions of the same imports."""
    match given:
        case ast.Attribute(value=ast.Name(owner), attr=name):
            methods = getattr(_defined(owner, module), "body", ())
            return [each for each in methods if getattr(each, "name", "") == name]
        case ast.Name(name) if (found := _defined(name, module)) is not None:
            return [found]
    lists = [n for n in _source(module).body if isinstance(n, ast.ImportFrom)]
    names = [each.name for n in lists if n.module == "tokenred.analysis" for each in n.names]
    return [found for name in names if (found := _defined(name, "tokenred.analysis"))]


def _defined(name: str, module: str) -> ast.AST | None:
    """Where a module defines a name, or what it imports under it."""
    for node in _source(module).body:
        match node:
            case ast.FunctionDef() | ast.ClassDef() if node.name == name:
                return node
            case ast.ImportFrom(module=str(home), names=names, level=level):
                if name in [each.name for each in names]:
                    return _defined(name, f"{module}.{home}" if level else home)
    return None


@cache
def _source(module: str) -> ast.Module:
    place = _ABOVE.joinpath(*module.split("."))
    files = (place / "__init__.pyi", place / "__init__.py", place.with_name(f"{place.name}.py"))
    file = next(file for file in files if file.is_file())
    return ast.parse(file.read_text(encoding="utf-8"))
