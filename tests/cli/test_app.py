"""The command line as a whole: help, errors of one line, and how it is stopped."""

import inspect
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from pkgutil import resolve_name

import pandas as pd
import pytest

import tokenred
from tests.cli.conftest import Run
from tokenred.cli import main
from tokenred.cli.app import app
from tokenred.cli.declared import declared, registered
from tokenred.cli.options import _readable
from tokenred.core.errors import UnknownNameError
from tokenred.core.lock import output_lock
from tokenred.core.registry import KINDS
from tokenred.core.values import parameters_of

COMMANDS = ("ablate", "agreement", "bench", "compare", "export", "finetune", "graph", "list",
            "oversmoothing", "plot tradeoff", "plot lines", "plot heat-map", "plot scorers",
            "plot table", "plot graph-table", "plot theta-table", "report", "reproduce",
            "show")  # fmt: skip
ROOT = str(Path(__file__).parents[2])


def test_version_and_help(run: Run) -> None:
    assert run("--version").stdout == f"tokenred {tokenred.__version__}\n"
    shown = run("--help")
    assert shown.stdout == run().stdout
    for command in COMMANDS:
        assert f" {command.partition(' ')[0]} " in shown.stdout
    shown = run("compare", "--help")
    for words in ("Without options: the bundled", "--strategy -s", "[@SHARE]", "--no-timing",
                  "CPU threads of PyTorch", "[default: 32]"):  # fmt: skip
        assert words in shown.stdout, words


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    found = app[command.split()[0]]
    found = found[command.split()[1]] if " " in command else found
    arguments = found.assemble_argument_collection(parse_docstring=True)
    unexplained = [each.name for each in arguments if not each.parameter.help]
    assert [name for name in unexplained if name != "*"] == []  # a group of options


def test_what_is_read_from_source_is_what_functions_declare() -> None:
    places = {name for file in Path(ROOT, "tokenred", "cli").glob("*.py")
              for name in re.findall(r'"(tokenred[.a-z_]*:[\w.]+)"', file.read_text())}  # fmt: skip
    assert len(places) > 10
    for place in places:
        read, real = declared(place), resolve_name(place)
        assert inspect.getdoc(read) in ("", inspect.getdoc(real))  # object has one for __init__
        ours, theirs = (inspect.signature(each).parameters for each in (read, real))
        assert list(ours) == list(theirs)
        for name in ours.keys() - {"tell"}:  # which is a function
            default = ours[name].default
            assert default == theirs[name].default, (place, name)
            kinds = [_readable(parameters_of(each)[name], default) for each in (read, real)]
            # Types that a module defines itself mean nothing here.
            assert kinds[0] in (None, kinds[1]), (place, name)


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_are_read_from_source_are_those_that_are_registered(kind: str) -> None:
    own = [entry for entry in KINDS[kind] if entry.source.startswith("tokenred.")]
    found = registered(KINDS[kind].folder)
    assert found == {e.name: ":".join(e.source.rsplit(".", 1)) for e in own}
    for entry in own if kind == "strategy" else ():
        assert inspect.signature(declared(found[entry.name])).parameters.keys() == entry.parameters


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["list", "scorer_s"], "unknown kind of part 'scorer_s'. Did you mean 'scorers'"),
        (["comparee"], 'Unknown command "comparee". Did you mean "compare"?'),
        (["compare", "--strategi", "gtp"], "Unknown option: --strategi. Did you mean --strategy?"),
        (["compare", "--limit", "many"], 'unable to convert "many" into int'),
        (["plot", "lines"], "requires an argument"),
        (["--import"], "--import"),
    ],
)
def test_an_error_is_one_line(run: Run, words: list[str], told: str) -> None:
    assert told in run(*words).refusal


@pytest.mark.parametrize("by_variable", [False, True])
def test_traceback_on_demand(run: Run, monkeypatch: pytest.MonkeyPatch, by_variable: bool) -> None:
    if by_variable:
        monkeypatch.setenv("TOKENRED_TRACEBACK", "1")
    result = run("list", "nothing", *([] if by_variable else ["--traceback"]))
    assert isinstance(result.exception, UnknownNameError)


def test_a_fault_in_a_part_of_one_s_own_is_one_line(run: Run, tmp_path: Path) -> None:
    part = tmp_path / "part.py"
    part.write_text(
        "import tokenred as tr\n@tr.register_scorer('Faulty', overwrite=True)\n"
        "class Faulty(tr.Scorer):\n    def __call__(self, state, attention):\n"
        "        return 1 / 0\n"
    )
    words = ["compare", "-s", "gtp:scorer=Faulty", "--limit", "2", "--no-timing"]
    out = ["--out", str(tmp_path / "out"), "--import", str(part)]
    result = run(*words, *out)
    assert result.exit_code == 1
    assert "ZeroDivisionError in part.py, line 5" in result.stderr
    assert "Traceback" not in result.stderr
    assert isinstance(run(*words, *out, "--overwrite", "--traceback").exception, ZeroDivisionError)


# Help, and what can be refused without PyTorch, need no library that takes long to import; the next
# lines need PyTorch, and the last what their figures are made with. None needs timm.
QUICK = """
import sys
from tokenred.cli import main

fair = {"timm", "torchvision"}
for line in sys.stdin.read().splitlines():
    heavy = fair | {"pandas", "matplotlib"} | ({"torch"} if line.startswith(" ") else set())
    try:
        main(line.removeprefix("+").split())
    except SystemExit:
        heavy = fair if line.startswith("+") else heavy
        assert not heavy & set(sys.modules), (line, heavy & set(sys.modules))
"""
QUICK_LINES = """\
 --help
 compare -o old
 compare --data nowhere --model digits
 compare --limit 0
 compare --mean 1,2
 bench -n 0
 bench --threads 0
 bench --dtype flot32
 reproduce --limit 0 --demo
 graph --demo -o x.txt
 report old.csv -o x.pdf
 finetune -s gtp -o new --epochs 0
 compare --resume --overwrite
 bench -o old
 bench --image-size a
 ablate none.toml
 ablate -a alpha
 ablate --model vit_tiny_patch16_224 -a P=4
 ablate -a P=4 -o old.csv
 agreement -o old
 oversmoothing -o old
 export -o old.onnx
 export -o old.bin
 finetune -s gtp -o old
 finetune -s gtp -o new --set mixup
 graph --demo -o old.png
 show --demo -o old.png
 show none.png --model digits
 plot lines none.csv --x P
 plot lines old.csv --x P -o old.png
 report none.db
 report old.csv -o old.html
 reproduce --imagenet nowhere
 reproduce --costs --checkpoint DeiT-S
 list nothing
 compare -s nothing
 compare -s gtp -s nothing:P=4@0.7
 bench -s nothing
 agreement -s nothing
 oversmoothing -s nothing
 show --demo -s nothing
 export -o a.onnx -s nothing
 finetune -s nothing -o new
 finetune -s gtp -o new --preset letters
 ablate --base nothing -a P=1
 ablate --against nothing -a P=1
 ablate -a base=gtp,nothing
 ablate -a alfa=1
 ablate -a scorer.agregate=max
 reproduce -e tabel4 --costs
 ablate -a scorer=DiagAttn,nothing
 compare -s gtp:P=4,scorer=nothing@0.7
 compare -s gtp@1.7
 compare -s gtp:Q=4
 compare -s topk:keep_rate
 graph --demo -b nothing:M=3
list scorers
compare -s MixedAttn
bench -s gtp:P=-1
ablate -a alfa=1
+graph --demo -b mixed:M=0
+reproduce --list
+reproduce
"""


def test_the_program_starts_quickly_and_its_error_is_one_line(tmp_path: Path) -> None:
    here = os.environ | {"PYTHONPATH": ROOT}
    (tmp_path / "old").mkdir()
    for name in ("old.csv", "old.onnx", "old.png", "old.html", "old/comparison.csv", "old/state.pt",
                 "old/results.db", "old/agreement.csv", "old/oversmoothing.csv"):  # fmt: skip
        (tmp_path / name).touch()
    misspelt = [f" {command} --buget 0.7\n {command} --help\n" for command in COMMANDS]
    told = subprocess.run(
        [sys.executable, "-c", QUICK], input="".join((*misspelt, QUICK_LINES)), cwd=tmp_path,
        capture_output=True, text=True, env=here,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert not (tmp_path / "new").exists()
    words = [sys.executable, "-m", "tokenred", "list", "nothing"]
    failed = subprocess.run(words, capture_output=True, text=True, env=here)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("tokenred: unknown kind of part 'nothing'")


def test_files_are_there_though_the_reader_leaves(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("P,strategy,method,graph,top1\n3,gtp,gtp,none,70\n")
    with subprocess.Popen(
        [sys.executable, "-m", "tokenred", "plot", "graph-table", "a.csv"],
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": ROOT}, cwd=tmp_path,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        running.stdout.close()
        assert running.wait() == 1
    assert (tmp_path / "graph-table.png").stat().st_size > 1000


def test_an_ascii_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        with pytest.raises(SystemExit, match="0"):
            main(["compare", "--no-timing", "--limit", "4", "-s", "gtp:P=6", "--out", "o[/b]"])
    terminal.seek(0)
    assert "Written: o[/b]" in terminal.read()
    written = sorted(path.name for path in (tmp_path / "o[/b]").iterdir())
    assert written == ["comparison.csv", "tradeoff.png"]


# ---------------------------------------------------------------- stopped, and two at once


def test_a_stopped_comparison_goes_on_to_the_same_rows(
    run: Run, moody: tuple[str, ...], tmp_path: Path
) -> None:
    ask = ("compare", *moody, "--no-timing", "--limit", 6, "--batch-size", 2,
           "-s", "gtp:P=4,scorer=Moody", "-s", "gtp:P=5,scorer=Moody")  # fmt: skip
    calls = tmp_path / "calls"

    def counted(*words: object, after: int = 10_000) -> tuple[int, int]:
        """The exit code, and how often the scorer was asked."""
        calls.write_text(f"{after} {signal.SIGTERM}")
        left = run(*words)
        used = after - int(calls.read_text().split()[0])
        calls.unlink()
        return left.exit_code, used

    whole, used = counted(*ask, "--out", "whole")
    assert whole == 0
    assert counted(*ask, "--out", "cut", after=used - 4)[0] == 143
    assert not (tmp_path / "cut" / "comparison.csv").exists()
    assert "--resume" in run(*ask, "--out", "cut").refusal

    resumed, few = counted(*ask, "--out", "cut", "--resume")
    assert resumed == 0
    assert few < used - 4  # no row is computed twice
    frames = [pd.read_csv(tmp_path / name / "comparison.csv") for name in ("whole", "cut")]
    pd.testing.assert_frame_equal(*frames)
    written = sorted(path.name for path in (tmp_path / "cut").iterdir())
    assert written == ["comparison.csv", "tradeoff.png"]


def test_who_stops_a_command_is_told_how_to_go_on(
    run: Run, moody: tuple[str, ...], tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    words = ("compare", *moody, "--no-timing", "--limit", 4, "-s", "gtp:scorer=Moody",
             "--out", "a b")  # fmt: skip
    start = (
        "tokenred: stopped; 1 of 2 results (cells and references) done. Continue with: tokenred "
    )
    for more in ((), ("--overwrite",)):  # what is there then
        calls.write_text(f"4 {signal.SIGINT}")
        stopped = run(*words, *more)
        assert stopped.exit_code == 130
        assert stopped.stderr.startswith(start)
        calls.unlink()
        assert run(*shlex.split(stopped.stderr.removeprefix(start))).exit_code == 0

    calls.write_text(f"4 {signal.SIGINT}")
    stopped = run("oversmoothing", *moody, "-s", "gtp:scorer=Moody", "--limit", 2)
    told = "tokenred: stopped; nothing was written.\n"
    assert (stopped.exit_code, stopped.stderr) == (130, told)


SLOW_IMPORT = """
import os, sys, time
def swallow():  # as packages do around optional imports
    try:
        time.sleep(60)
    except BaseException:
        pass
open({ready!r}, "w").close()
swallow()
print("went on", file=sys.stderr)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_import_does_not_swallow_a_stop(tmp_path: Path, number: signal.Signals) -> None:
    ready = tmp_path / "ready"
    (tmp_path / "matplotlib.py").write_text(SLOW_IMPORT.format(ready=str(ready)))
    Path(tmp_path, "a.csv").write_text("P,strategy,method,top1\n3,gtp,gtp,70\n")
    command = [sys.executable, "-m", "tokenred", "plot", "lines", "a.csv", "--x", "P"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as running:
        while not ready.exists():
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(number)
        _, told = running.communicate(timeout=30)
    assert running.returncode == 128 + number
    assert told == "tokenred: stopped; nothing was written.\n"


def test_two_runs_into_one_place(run: Run, tmp_path: Path) -> None:
    Path("out").mkdir()
    Path("a.csv").write_text("P,strategy,method,top1\n3,gtp,gtp,70\n")
    held, tried = threading.Event(), threading.Event()

    def other_run() -> None:
        with ExitStack() as stack:
            for name in ("out", "page.html", "a.png", "a.onnx"):
                stack.enter_context(output_lock(Path(name)))
            held.set()
            tried.wait()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(other_run)
        held.wait()
        try:
            for words in (
                "compare --random-weights --pairs 2 -s topk --out out",
                "bench -n 1 --pairs 2 -s topk -o out",
                "oversmoothing --limit 2 -o out",
                "agreement --limit 2 -o out",
                "finetune -s gtp:P=4 --epochs 1 --limit 96 -o out",
                "reproduce --costs -e table2 -o out",
                "report a.csv -o page.html",
                "show --demo -o a.png",
                "graph --demo -o a.png",
                "plot lines a.csv --x P -o a.png",
                "export --model digits -o a.onnx",
            ):
                assert f"process {os.getpid()} on" in run(*words.split()).refusal, words
        finally:
            tried.set()
    assert list((tmp_path / "out").iterdir()) == []
