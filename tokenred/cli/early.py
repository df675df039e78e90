"""What a command refuses by looking at files alone, before PyTorch is imported for the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path

from tokenred.core.errors import ConfigError, DataError, OutputExistsError
from tokenred.core.files import check_folder, check_new

# Where commands write: by default, and the files in that folder. Without files it is one itself.
_OUTPUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ablate": ("", ()),
    "agreement": ("tokenred-out/agreement", ("agreement.csv", "agreement.png")),
    "bench": ("tokenred-out/bench", ("results.db", "results.csv", "break_even.png")),
    "compare": ("tokenred-out", ("comparison.csv",)),
    "export": ("", ()),
    "finetune": ("", ("state.pt", "log.csv", "best.safetensors", "last.safetensors")),
    "graph": ("tokenred-out/graph.png", ()),
    "oversmoothing": ("tokenred-out/oversmoothing", ("oversmoothing.csv", "oversmoothing.png")),
    "plot": ("{}.png", ()),
    "report": ("report.html", ()),
    "show": ("tokens.png", ()),
}
_RESUMED = ("bench", "finetune")
_RESUMABLE = (*_RESUMED, "compare")
# What the first word after a command is the path of, and options that are paths.
_INPUTS = {"ablate": "the study file ", "graph": "the photograph ", "plot": "", "report": "",
           "show": "the photograph "}  # fmt: skip
_OPTIONS = {"--checkpoint": "the weights ", "--classes": "the names of the classes ",
            "--class-map": "the class map "}  # fmt: skip

# Of all commands; a test compares them with those that the commands have.
_NAMES = """
address against all-edges amp attention axis backbone base baselines batch-size budget builder
channels-last chart check checkpoint class-map classes columns compile costs data demo device
dry-run dtype engine epochs experiment finetuned fix format front gpus graph height help holders
hue image-cache image-size imagenet import index invalid layer layers level limit list
loaders lr max-seconds mean memory metric model name off-the-shelf on-error opset out output
overwrite pairs paper-method patch preset progress published quick random-weights reference
relative removed resume retries retry-failed rows seed set share smaller sort speed split
statistic std store strategy table tensorboard text threads timing title tolerance traceback
use-ema validation version wait warmup width workers x y
"""
OPTIONS = frozenset(_NAMES.split())


def refuse_early(words: Sequence[str]) -> None:
    """Refuse unknown options, outputs that exist, inputs that do not, --resume with --overwrite.

    Everything else about these words is left to the command.

    Raises:
        TokenredError: as the command itself would.
    """
    _check_names(words)
    # Options of all commands, such as --import, may come first.
    at = next((at for at, word in enumerate(words) if word in _OUTPUTS), len(words))
    command, *rest = words[at:] or [""]
    kind = rest.pop(0) if command == "plot" and rest and not rest[0].startswith("-") else ""
    given = _options(rest)
    if command not in _OUTPUTS or {"--help", "-h"} & given.keys():
        return
    if command in _RESUMABLE and {"--resume", "--overwrite"} <= given.keys():
        raise ConfigError("--resume continues an earlier run, --overwrite replaces it; choose one.")
    paths = [(_OPTIONS[name], value) for name, value in given.items() if name in _OPTIONS]
    if command in _INPUTS and rest and not rest[0].startswith("-"):
        paths.append((_INPUTS[command], rest[0]))
    for what, path in paths:
        named = what == _OPTIONS["--class-map"] and not path.endswith(".json")
        if path and not named and not Path(path).expanduser().exists():
            raise DataError(f"cannot read {what}{path}: there is no such file.")
    _check_output(command, kind, given)


def _check_names(words: Sequence[str]) -> None:
    for word in words:
        name = re.sub("^--(no-|empty-)?", "", word.partition("=")[0]).replace("_", "-")
        if re.match("--[a-z]", word) and name not in OPTIONS:
            close = get_close_matches(name, OPTIONS, n=1)
            hint = f" Did you mean --{close[0]}?" if close else ""
            raise ConfigError(f"unknown option {word}.{hint} --help lists those of a command.")


def _options(words: Sequence[str]) -> dict[str, str]:
    """The options among some words, each with what follows it."""
    found = {}
    for word, after in zip_longest(words, words[1:], fillvalue=""):
        name, told, value = word.partition("=")
        if name.startswith("-"):
            found[name] = value if told else "" if after.startswith("-") else after
    return found


def _check_output(command: str, kind: str, given: dict[str, str]) -> None:
    default, names = _OUTPUTS[command]
    asked = next((given[name] for name in ("--output", "--out", "-o") if name in given), "")
    place = asked or default.format(kind)
    free = {"--overwrite", "--chart"} | ({"--resume"} if command in _RESUMED else set())
    free |= {"--dry-run"} if command != "finetune" else set()
    free |= {"--demo"} if command == "compare" and not asked else set()
    if not place or free & given.keys():
        return
    if not names:
        check_new(place)
        return
    folder = check_folder(place)
    old = [name for name in names if (folder / name).exists()]
    if old and command in _RESUMED:
        raise OutputExistsError(
            f"{folder} already contains a run ({', '.join(old)}). Continue it (--resume), choose "
            "another folder, or replace it (--overwrite)."
        )
    for name in old:
        check_new(folder / name)
