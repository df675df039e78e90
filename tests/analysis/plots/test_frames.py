"""Where frames come from, which rows are chosen, and what columns are called."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from tokenred.analysis.plots.frames import axes_of, choose, label_of, read_frame, show_value
from tokenred.core.errors import DataError, InputError


def test_from_a_frame_an_owner_of_one_and_a_file(grid: pd.DataFrame, tmp_path: Path) -> None:
    own = grid.rename(columns={"M": "frame"})
    for source in (own, SimpleNamespace(frame=own), SimpleNamespace(frame=lambda: own)):
        assert read_frame(source) is own
    path = tmp_path / "grid.csv"
    grid.to_csv(path, index=False)
    for source in (path, str(path)):
        assert read_frame(source)["top1"].tolist() == pytest.approx(grid["top1"].tolist())


def test_names_and_truth_values_of_a_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("graph,fuser,log_s,x\nnone,None,True,1\nmixed,merge,,\n")
    frame = read_frame(path)
    assert frame["graph"].tolist() == ["none", "mixed"]
    assert frame["fuser"].tolist() == ["None", "merge"]
    assert frame["log_s"][0] is True
    assert frame["log_s"].isna().tolist() == frame["x"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot read"), ("", "header"), ("a\n", "with rows"), (3, "got int")],
)
def test_what_is_no_frame(tmp_path: Path, text: str | int | None, message: str) -> None:
    path = tmp_path / "a.csv"
    if isinstance(text, str):
        path.write_text(text)
    with pytest.raises((DataError, InputError), match=message):
        read_frame(text if isinstance(text, int) else path)


def test_choosing_rows(grid: pd.DataFrame) -> None:
    assert set(choose(grid, {"alpha": 0.1, "P": "3"})["M"]) == {4, 8}
    assert len(choose(grid, {"alpha": 0.1 + 1e-12})) == 4
    assert len(choose(grid, {"method": "GTP"})) == len(grid)
    with pytest.raises(InputError, match=r"no row has M=5; the values of M are 4, 8"):
        choose(grid, {"M": 5})
    with pytest.raises(InputError, match=r"Did you mean 'M'\?"):
        choose(grid, {"m": 4})
    with pytest.raises(InputError, match=r"column scorre; the frame has none such\. Did you mean"):
        choose(grid.assign(scorer="A"), {"scorre": "A"})
    with pytest.raises(InputError, match=r"column scorer; the frame has alpha, M, .* cores\.$"):
        choose(grid.assign(cores=2), {"scorer": "A"})
    with pytest.raises(InputError, match=r"needs the columns theta, phi; the frame has alpha, M,"):
        choose(grid, {"theta": 1, "M": 4, "phi": 2})


def test_axes_stand_before_strategy(grid: pd.DataFrame) -> None:
    assert axes_of(grid) == ["alpha", "M", "P"]
    own = grid.drop(columns="strategy").assign(mine=1)
    assert axes_of(own) == ["alpha", "M", "P", "mine"]


def test_labels_have_units() -> None:
    assert label_of("top1") == "top-1 accuracy (%)"
    assert label_of("my_axis") == "my axis"
    assert [show_value(v) for v in (0.1 + 0.2, 8.0, 3, "mixed")] == ["0.3", "8", "3", "mixed"]
