"""The script of the goals, with a tiny section in the place of the long ones."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.benchmarks.conftest import FOLDER
from tokenred.analysis import Sweep
from tokenred.strategies.specs import parse_spec


@pytest.fixture
def tiny(targets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    never = targets.Check("never", lambda row: False, lambda row: row["batch_size"] == 2)
    sweeps = [{"models": "digits", "strategies": ("topk",), "batch_sizes": (1,)}]
    cuda = [{**sweeps[0], "devices": ("no-such",)}]
    chosen = {
        "good": targets.Section("Good", sweeps),
        "bad": targets.Section("Bad", [*sweeps, {**sweeps[0], "batch_sizes": (2,)}], (never,)),
        "gpu": targets.Section("Elsewhere", cuda),
    }
    monkeypatch.setattr(targets, "SECTIONS", chosen)
    monkeypatch.setattr(targets, "HERE", tmp_path)
    return targets


def test_every_section_can_be_read_and_has_its_place(targets: ModuleType) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    names = ["deit_s", "tiny_base", "batch_1", "vit_b8", "split", "tokens", "methods", "gpu"]
    assert list(targets.SECTIONS) == names
    for name, section in targets.SECTIONS.items():
        assert f"<!-- {name} -->\n" in readme
        assert f"\n<!-- /{name} -->" in readme
        specs = {text for part in section.sweeps for text in part["strategies"]}
        assert [parse_spec(text).label for text in specs] == list(specs)
        rows = [
            {"strategy": text, "batch_size": batch, "tokens": tokens, "peak_bytes": 1,
             "split_choosing": 0.1}
            for text in specs for batch in (4, 8, 32) for tokens in (196, 784)
        ]  # fmt: skip
        # No goal is for a strategy that is not measured.
        assert all(any(check.applies(row) for row in rows) for check in section.checks)


def test_sections_run_into_files_and_resume(
    tiny: ModuleType, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    assert tiny.main(["good", "--pairs", "2", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "## Good" in out
    assert "`python benchmarks/targets.py good --pairs 2 --threads 1`" in out
    assert len(Sweep.read(tmp_path / "results" / "good.db").rows) == 1

    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("measured twice")

    with monkeypatch.context() as patch:
        patch.setattr("tokenred.analysis.study.metrics.benchmark", never)
        assert tiny.main(["good", "--pairs", "2", "--threads", "1"]) == 0
    assert tiny.main(["good", "--pairs", "2", "--threads", "1", "--overwrite"]) == 0
    assert len(Sweep.read(tmp_path / "results" / "good.db").rows) == 1


def test_a_missed_goal_shows(tiny: ModuleType, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    readme = tmp_path / "README.md"
    readme.write_text("<!-- bad -->\n<!-- /bad -->\n")
    assert tiny.main(["bad", "--pairs", "2", "--readme"]) == 1
    assert "never ✗" in capsys.readouterr().out
    assert readme.read_text().count("`topk`") == 2


def test_what_this_machine_lacks_is_skipped(tiny: ModuleType, capsys) -> None:  # type: ignore[no-untyped-def]
    assert tiny.main(["gpu"]) == 0
    assert "Not measured: no cell of the sweep can run" in capsys.readouterr().out


def test_a_dry_run(tiny: ModuleType, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert tiny.main(["bad", "--dry-run", "--readme"]) == 0
    assert capsys.readouterr().out.count("To do: ") == 2
    assert not list((tmp_path / "results").iterdir())


def test_an_unknown_section(tiny: ModuleType, capsys) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit) as caught:
        tiny.main(["nothing"])
    assert caught.value.code == 2
    assert "known: good, bad, gpu" in capsys.readouterr().err
