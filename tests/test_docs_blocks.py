"""What the README and the pages of docs/ print runs: Python as it stands, commands as they parse.

Python blocks of a page run in order, in one namespace and an empty folder. ``tr`` and ``model``
are there from the start, for pages that are about something else than loading a model. A block that
says ``downloads weights`` gets random ones for the same architecture, and so runs the same lines.
"""

import functools
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import timm

import tokenred as tr
from tokenred.analysis.study import metrics
from tokenred.cli.app import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md",
        ROOT / "notebooks" / "README.md", *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").glob("*/README.md"),
    )
)  # fmt: skip
DOWNLOADS = "downloads weights"
# Marks a shell, or a placeholder, at the start of a line; not part of the command.
PROMPT = re.compile(r"^\$ ")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```([a-z]*)[^\n]*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [code for language, code in found if language in languages]


def commands(page: str) -> list[str]:
    """The lines of a page's shell blocks, long ones joined."""
    whole = "".join(blocks(page, "console", "bash", "sh")).replace("\\\n", "")
    return [PROMPT.sub("", line) for line in whole.splitlines() if line.strip()]


def with_some(function: Any) -> list[Any]:
    """The pages for which a function finds anything."""
    return [page for page in PAGES if function(page)]


# ---------------------------------------------------------------- Python


@pytest.fixture(autouse=True)
def _leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tr.backbones, "_BACKBONES", list(tr.backbones._BACKBONES))
    monkeypatch.setattr(metrics, "_METRICS", dict(metrics._METRICS))
    yield
    plt.close("all")


def run(page: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the Python blocks of a page; what they leave."""
    names: dict[str, Any] = {"__name__": "__main__", "tr": tr}
    names["model"] = tr.models.load_model("digits")
    create = timm.create_model

    def created(name: str, *args: Any, pretrained: bool = False, **options: Any) -> Any:
        assert not pretrained or DOWNLOADS in code, f"{page}: mark what {DOWNLOADS}"
        return create(name, *args, **options)

    monkeypatch.setattr(timm, "create_model", created)
    if any("transformers" in code for code in blocks(page, "python")):
        towers = pytest.importorskip("transformers").PreTrainedModel
        monkeypatch.setattr(towers, "from_pretrained", classmethod(random_tower))
    for number, code in enumerate(blocks(page, "python")):
        exec(compile(code, f"{page} block {number}", "exec"), names)
    return names


def random_tower(kind: Any, name: str) -> Any:
    """A tower of ``transformers`` as wide and deep as the one of that name, its MLP aside."""
    config = kind.config_class()
    patch = re.search(r"patch(\d+)", name)
    changed = {"intermediate_size": 16, "mlp_ratio": 1}
    if patch is not None:
        changed["patch_size"] = int(patch[1])
    for key, value in changed.items():
        if hasattr(config, key):
            setattr(config, key, value)
    return kind(config)


@pytest.mark.parametrize("page", with_some(lambda page: blocks(page, "python")))
def test_python(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tr.training, "finetune", functools.partial(quick, tr.training.finetune))
    names = run(page, monkeypatch)
    if page == "docs/dense.md":
        assert tuple(names["soft_tokens"].shape[::2]) == (2, 64)
        shapes = [tuple(found.shape) for found in names["encoder"](names["images"])]
        assert shapes == [(2, 384, 8, 8)] * 4
        assert names["encoder"].feature_info.reduction() == [14] * 4


def quick(train: Any, *args: Any, settings: Any, **options: Any) -> Any:
    """One step of a training; hours would show no more."""
    few = tr.data.open_dataset("digits")
    few.labels = few.labels[:16]
    settings = settings.replace(epochs=1, batch_size=8, warmup_epochs=0)
    return train(*args, settings=settings, limit=8, validation=few, progress=False, **options)


@pytest.mark.parametrize("page", with_some(lambda page: blocks(page, "toml")))
def test_toml(page: str) -> None:
    for code in blocks(page, "toml"):
        tomllib.loads(code)


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize("page", with_some(commands))
def test_commands(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The reader has the files.
    monkeypatch.setattr("tokenred.cli.absent.exists", lambda _: True)
    for line in commands(page):
        check(shlex.split(line, comments=True), line)


def check(words: list[str], line: str) -> None:
    """Refuse a command line that could not run as it is printed."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words:
        return  # a comment
    program, *arguments = words
    name = program.removeprefix(".venv/bin/")
    if name == "tokenred":
        parse(arguments)
    elif name in ("accelerate", "torchrun"):
        assert "tokenred" in arguments, line
        parse(arguments[arguments.index("tokenred") + 1 :])
    elif name == "make":
        assert {word for word in arguments if "=" not in word} <= TARGETS, line
    elif name == "pip":
        extras = re.findall(r"^(?:tokenred|\.)\[(.*)\]$", "\n".join(arguments), re.MULTILINE)
        assert {extra for found in extras for extra in found.split(",")} <= set(EXTRAS), line
        paths = [word for word in arguments if "/" in word and "://" not in word]
        local = [re.sub(r"\[.*\]$", "", word) for word in paths]
        assert all((ROOT / path / "pyproject.toml").exists() for path in local), line
    elif name in ("python", "pytest"):
        paths = [word.partition("::")[0] for word in arguments if re.match(r"\w+/|\w+\.py$", word)]
        code = [path for path in paths if path.endswith(".py")]
        assert code or name == "pytest" or arguments[0] == "-m", line
        assert all((ROOT / path).exists() for path in code), line
    else:
        assert (ROOT / program).exists() or program.startswith(".venv/bin/"), f"unknown: {line}"


def parse(arguments: list[str]) -> None:
    """Refuse sub-commands and options that there are not; run nothing."""
    _, bound, _ = app.meta.parse_args([word.replace("…", "X") for word in arguments])
    app.parse_args(bound.args)


def options_of(words: list[str]) -> set[str]:
    """The options of the command that words name, and those of all commands."""
    _, (*_, command), _ = app.parse_commands(words)
    collections = (each.assemble_argument_collection() for each in (command, app.meta))
    return {name for found in collections for argument in found for name in argument.names}


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text("utf-8"), flags=re.S | re.M)
    for line in re.findall(r"`((?:tokenred|make) [^`]+)`", text):
        program, *words = shlex.split(line)
        if program == "make":
            assert {word for word in words if "=" not in word} <= TARGETS
            continue
        if words[0] == "…":
            continue
        used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= options_of(words), f"{page}: {line}"
