"""Study files."""

import re
from pathlib import Path

import pytest

import tokenred as tr
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.study_file import StudyFile, read_study
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.values import parameters_of

TEXT = """
[study]
base = "mine.toml"
model = { spec = "digits" }
data = "images"
limit = 20
metrics = ["accuracy"]
against = "dense"
engine = "processes"
workers = 2
store = "runs/a.db"
output = "a.csv"

[axes]
alpha = [0.05, 0.1]
scorer.aggregate = ["max", "mean"]
graph = ["mixed", { name = "semantic", M = 4 }]
data = ["images", "digits", "cifar10:more"]

[[cells]]
alpha = 0.3
fuser.alpha = 0.5
"""


def read(path: Path) -> StudyFile:
    return read_study(path, parameters_of(Grid))


def written(folder: Path, text: str = TEXT) -> Path:
    path = folder / "my study.toml"
    path.write_text(text)
    return path


def test_reads_grid_and_run(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "more").mkdir()
    (tmp_path / "digits").mkdir()  # not what is meant
    tr.strategy("gtp", P=3).to_toml(tmp_path / "mine.toml")
    found = read(written(tmp_path))
    images = str(tmp_path / "images")
    assert found.run == {"engine": "processes", "workers": 2}
    assert found.store == tmp_path / "runs" / "a.db"
    assert found.output == tmp_path / "a.csv"
    assert found.grid["name"] == "my study"
    assert found.grid["data"] == images
    assert found.grid["axes"]["data"] == [images, "digits", f"cifar10:{tmp_path / 'more'}"]
    assert found.grid["axes"]["scorer.aggregate"] == ["max", "mean"]
    assert found.grid["cells"] == [{"alpha": 0.3, "fuser.alpha": 0.5}]
    grid = Grid(**found.grid)
    assert len(grid) == 25
    assert (grid.limit, grid.against) == (20, "dense")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[study", ConfigError, "not valid TOML"),
        ("[study]\nbase = 'gtp'", ConfigError, "neither"),
        ("[axis]\nalpha = [1]", UnknownNameError, "Did you mean 'axes'"),
        ("[study]\nbatchsize = 3\n[axes]\na = [1]", UnknownNameError, "'batch_size'"),
        ("study = 3\n[axes]\na = [1]", ConfigError, "to be a table"),
        ("[cells]\na = 1", ConfigError, "two brackets"),
    ],
)
def test_refused(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the study file"):
        read(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read(tmp_path / "binary.toml")


def test_the_study_file_of_the_documentation(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "studies.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    found = read(written(tmp_path, text))
    frame = Grid(**found.grid).dry_run()
    assert len(frame) == 25
    assert (frame["status"] == "to do").all()
    assert found.run == {"engine": "processes", "workers": 2}
