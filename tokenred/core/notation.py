"""Names and values in command-line notation: ``P=4,scorer=Random(seed=1)``."""

import ast
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tokenred.core.errors import ConfigError, UnknownNameError, shown
from tokenred.core.registry import KINDS

AMOUNTS = ("P", "r", "keep_rate", "keep", "ratio", "rows_removed", "thresholds")
"""What recipes call the number of tokens that go, or stay."""

TRUTH = {"true": True, "false": False}
_CONSTANTS: dict[str, bool | None] = {**TRUTH, "none": None}
_UNREADABLE = (SyntaxError, ValueError, TypeError, MemoryError, RecursionError)
_DOTTED = re.compile(r"(?<==)[A-Za-z_]\w*(?:\.\w+)+(?=\s*[,)]|$)")  # deit_b_11.5 is no Python
EXAMPLES = "'gtp', 'gtp:P=4,alpha=0.2', 'evit:keep_rate=0.5', 'tome@0.65' or the path of a .toml"


def read_arguments(text: str, written: str) -> dict[str, Any]:
    """Names and values from ``P=4,scorer=Random(seed=1)``.

    Args:
        text: to be read.
        written: the full input, for the message.

    Raises:
        ConfigError: for text of another form.
    """
    try:
        quoted = _DOTTED.sub(lambda word: repr(word[0]), text)
        call = ast.parse(f"f({quoted})", mode="eval").body
        # Text that closes the parenthesis itself is refused.
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise ValueError("not a list of arguments")
        return _keywords(call)
    except ConfigError:
        raise
    except _UNREADABLE as error:
        raise ConfigError(
            f"expected KEY=VALUE, separated by commas, after the name in {shown(written)}; "
            f"write it like {EXAMPLES}."
        ) from error


def read_spec(written: str) -> tuple[str, dict[str, Any] | None, float | None]:
    """The name, the arguments and the share of ``NAME[:KEY=VALUE,…][@SHARE]``.

    Of a ``.toml`` file, with or without a share, its path, and None for the arguments.

    Raises:
        ConfigError: for text of another form.
    """
    body, share = written, None
    if "@" in written and not written.endswith(".toml"):
        body, _, last = written.rpartition("@")
        share = read_share(written, last)
    if body.endswith(".toml"):
        return body, None, share
    name, _, arguments = body.partition(":")
    name = name.strip()
    if not name or set("=,@") & set(name):
        hint = "" if "=" in name else " Write several as a list, or repeat the option."
        raise ConfigError(f"expected a strategy, such as {EXAMPLES}; got {shown(written)}.{hint}")
    return name, read_arguments(arguments, written), share


def check_amount(recipe: str, key: str, own: Iterable[str]) -> None:
    """Refuse the name that another recipe has for the number of tokens.

    Args:
        recipe, key: of the argument.
        own: the parameters of the recipe.

    Raises:
        UnknownNameError: with the recipe's own name for it.
    """
    own = list(own)
    theirs = next((amount for amount in AMOUNTS if amount in own), None)
    if key in AMOUNTS and key not in own and theirs:
        raise UnknownNameError(
            f"strategy {recipe!r} has no {key}; its number of tokens is {theirs}=."
        )


def check_table(table: Mapping[str, Any], fields: Iterable[str], recipes: Iterable[str]) -> None:
    """Refuse a strategy file that names no recipe and no scorer, or has unknown keys.

    Args:
        table: its content.
        fields: of `Strategy`.
        recipes: the names of all.

    Raises:
        ConfigError: if nothing is named.
        UnknownNameError: for a key.
    """
    if "recipe" in table:
        return
    if unknown := sorted(set(table) - set(fields)):
        raise UnknownNameError.of("key of a strategy file", unknown[0], [*fields, "recipe"])
    if not {"scorer", "steps"} & set(table):
        raise ConfigError(
            'a strategy file needs a [scorer] table, [[steps]] or a recipe = "name" line; it has '
            f"{', '.join(sorted(table)) or 'nothing'}. Recipes: {', '.join(recipes)}."
        )


def split_arguments(text: str) -> list[str]:
    """The pieces between commas, except those within a part's own parentheses."""
    return re.split(r",(?![^(\[]*[)\]])", text)


def read_assignment(text: str, option: str, form: str = "KEY=VALUE") -> tuple[str, Any]:
    """A name and a value from ``mixup=0``; a value that is not a literal is a string.

    Args:
        text: to be read.
        option: the command's, for the message.
        form: what it takes, for the message.

    Raises:
        ConfigError: for text of another form.
    """
    name, _, value = text.partition("=")
    if not name.strip() or not value.strip():
        raise ConfigError(f"expected {option} {form}, got {shown(text)}.")
    try:
        return name.strip(), _value(ast.parse(value.strip(), mode="eval").body)
    except _UNREADABLE:
        return name.strip(), value.strip()


def read_share(written: str, value: str | float) -> float:
    """A share of the dense model's GMACs.

    Args:
        written: the full input, for the message.
        value: the share.

    Raises:
        ConfigError: for one that is not between 0 and 1.
    """
    try:
        share = float(str(value).strip())
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise ConfigError(
            "expected a share of the dense model's GMACs between 0 and 1 for "
            f"{shown(written)}, such as 0.65, got {shown(value)}."
        )
    return share


def _keywords(call: ast.Call) -> dict[str, Any]:
    if call.args:
        raise ValueError("a value without a name")
    pairs = [(keyword.arg, keyword.value) for keyword in call.keywords]
    if any(name is None for name, _ in pairs):
        raise ValueError("** is not allowed here")
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name given twice")
    return {str(name): _value(value) for name, value in pairs}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return _CONSTANTS.get(node.id.lower(), node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.args:
            raise _nameless(node.func.id, ast.unparse(node.args[0]))
        return {"name": node.func.id} | _keywords(node)
    if isinstance(node, ast.Tuple | ast.List):
        values = [_value(element) for element in node.elts]
        return tuple(values) if isinstance(node, ast.Tuple) else values
    return ast.literal_eval(node)


def _nameless(part: str, value: str) -> ConfigError:
    """What to say of ``KeepRatio(0.7)``."""
    made = (kind[part].make for kind in KINDS.values() if part in kind)
    first = (name for make in made for name in inspect.signature(make).parameters)
    return ConfigError(
        f"expected KEY=VALUE in the parentheses of {part}({value}); write it like "
        f"{part}({next(first, 'KEY')}={value})."
    )
