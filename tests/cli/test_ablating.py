"""``tokenred ablate`` on the embedded model and data."""

import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import save_file

from tests.cli.conftest import Run
from tokenred.analysis import Store
from tokenred.analysis.measure.machine import weights_digest
from tokenred.models import load_model

FEW = ("ablate", "--base", "gtp:P=6", "--limit", 10, "--batch-size", 10)


def test_prints_the_best_first_and_writes_a_csv(run: Run, tmp_path: Path) -> None:
    arguments = (*FEW, "-a", "alpha=0.05,0.1", "-a", "graph=mixed,Spatial()",
                 "-a", "scorer.aggregate=max", "-o", "a.csv")  # fmt: skip
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    for words in ("(dense)", "difference from dense", "0.05", "spatial", "10 images of digits",
                  "4 cells, all distinct; 10 images", "Written: a.csv"):  # fmt: skip
        assert words in result.stdout, words
    frame = pd.read_csv("a.csv")
    assert frame["method"].tolist() == ["dense", *["gtp"] * 4]
    assert frame["alpha"].fillna(0).tolist() == [0, 0.05, 0.05, 0.1, 0.1]
    assert (frame["difference_from"] == "dense").all()
    assert {"difference", "difference_low", "difference_high"} <= set(frame.columns)
    store = tmp_path / "tokenred-out" / "ablation.db"
    with Store(store, readonly=True) as found:
        assert len(found) == 5
    assert "--overwrite" in run(*arguments).refusal
    assert run(*arguments, "--overwrite").exit_code == 0


def test_random_weights_of_models_on_an_axis(run: Run) -> None:
    arguments = ("-a", "model=digits,vit_tiny_patch16_224", "-a", "P=4", "--random-weights")
    result = run("ablate", *arguments, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "2 cells" in result.stdout
    result = run("ablate", "-a", "model=digits", "-a", "P=4", "--random-weights", "-m", "split")
    assert result.exit_code == 0, result.output
    with Store("tokenred-out/ablation.db", readonly=True) as found:
        (digest,) = {row["weights"] for row in found.rows()}
    assert digest != weights_digest(load_model("digits"))


def test_weights_of_ones_own(run: Run) -> None:
    other = load_model("digits", pretrained=False)
    save_file(other.state_dict(), "mine.safetensors")
    words = (*FEW, "-a", "P=4", "--model", "digits", "--checkpoint", "mine.safetensors")
    result = run(*words, "--store", "a.db")
    assert result.exit_code == 0, result.output
    with Store("a.db", readonly=True) as found:
        assert {row["weights"] for row in found.rows()} == {weights_digest(other)}
    assert "expected --model with --checkpoint" in run(*words, "--random-weights").refusal


def test_heights_and_widths_on_an_axis(run: Run) -> None:
    result = run("ablate", "-a", "P=4", "-a", "image_size=32x64,none", "-m", "speed", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "2 cells" in result.stdout


def test_a_study_file_and_options_before_it(run: Run, tmp_path: Path) -> None:
    Path("mine.toml").write_text(
        """
        [study]
        base = "gtp:P=6"
        model = "digits"
        limit = 500
        against = "base"
        [axes]
        alpha = [0.05, 0.1]
        M = [4, 8]
        """
    )
    result = run("ablate", "mine.toml", "--limit", 12, "-a", "M=8", "--rows", 1)
    assert result.exit_code == 0, result.output
    assert "(base)" in result.stdout
    assert "2 cells" in result.stdout
    assert "What 12 images can tell" in result.stdout
    with Store(tmp_path / "mine.db", readonly=True) as store:
        assert {row["study"] for row in store.rows()} == {"mine"}


def test_dry_run(run: Run, tmp_path: Path) -> None:
    result = run("ablate", "-a", "P=4,30,5", "--invalid", "skip", "--dry-run", "--rows", 2)
    assert result.exit_code == 0, result.output
    for words in ("gtp:P=4", "0.0472", "to do", "skipped: gtp:P=30: ScheduleError", "… and 1 more",
                  "3 cells, model digits, data digits: 2 to do, 1 skipped. Nothing"):  # fmt: skip
        assert words in result.stdout.replace("\n", " "), words
    assert not list(tmp_path.iterdir())


def test_a_dry_run_lists_the_references(run: Run, tmp_path: Path) -> None:
    words = (
        "ablate",
        "--limit",
        10,
        "--against",
        "gtp",
        "-a",
        "base=tome,topk",
        "-a",
        "budget=0.6,0.7",
    )
    result = run(*words, "--dry-run")
    told = "Compared with gtp@0.6 (0.0380 GMACs, to do), gtp@0.7 (0.0447 GMACs, to do)."
    assert told in result.stdout.replace("\n", " ")
    run(*words, "--store", "a.db")
    result = run(*words, "--store", "a.db", "--dry-run")
    assert "GMACs, done), gtp@0.7" in result.stdout.replace("\n", " ")


def test_a_list_of_cells_is_one_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    result = run("ablate", "-a", "base=gtp:P=6,scorer=MixedAttn(aggregate=mean)@0.65", "--dry-run")
    head, first, second, *_ = result.stdout.splitlines()[1:]
    assert head.split() == ["cell", "GMACs", "the", "end", "status", "strategy"]
    assert first.split() == ["0", "0.0412", "22", "to", "do", "gtp:P=6,scorer=MixedAttn("]
    assert second.split() == ["aggregate=mean)@0.65"]


def test_failed_cells_show_in_the_exit_code(run: Run, moody: tuple[str, ...]) -> None:
    words = (*FEW, *moody, "-a", "scorer=Moody", "--against", "none")
    Path("broken").touch()
    result = run(*words)
    assert result.exit_code == 1
    told = "failed: gtp:P=6,scorer=Moody: ZeroDivisionError: division by zero (moody.py, line 17)"
    assert told in result.stdout
    Path("broken").unlink()
    assert run(*words).exit_code == 1
    again = run(*words, "--retry-failed")
    assert again.exit_code == 0, again.output


def test_an_interrupt_says_how_to_go_on(run: Run, moody: tuple[str, ...]) -> None:
    Path("calls").write_text(f"4 {signal.SIGINT}")
    result = run(*FEW, *moody, "-a", "alpha=0.05,0.1", "-a", "scorer=Moody")
    assert result.exit_code == 130
    (line,) = result.stderr.splitlines()
    assert line.startswith("tokenred: stopped")
    assert "Continue with: tokenred ablate" in line


def test_values_on_the_command_line(run: Run) -> None:
    assert "Did you mean 'top1'" in run(*FEW, "-a", "P=4", "--sort", "top_1").refusal
    assert not Path("tokenred-out").exists()  # before anything runs
    result = run(
        "ablate", "-a", "base=gtp,tome", "-a", "base=evit:keep_rate=0.5,fuse=false",
        "-a", "dtype=float32,amp:bfloat16", "-a", "device=cpu:0", "-a", "compile=max-autotune",
        "--image-size", "32x36",
        "-a", "alpha=(0.1,0.1,0.1,0.1,0.2,0.2,0.2,0.2)",
        "--dry-run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "6 cells, model digits, data digits: 6 to do" in result.stdout
    assert "evit:keep_rate=0.5,fuse=false" in result.stdout


def test_the_second_start_imports_little(run: Run) -> None:
    """timm alone takes longer to import than a finished grid may take."""
    words = [*map(str, FEW), "-a", "alpha=0.05,0.1", "--store", "a.db"]
    assert run(*words).exit_code == 0
    program = (
        "import sys; from tokenred.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'timm', 'torchvision', 'pandas', 'scipy', 'matplotlib', 'ray'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert "2 cells" in found.stdout
