"""Progress where there is no terminal."""

import pytest

from tokenred.core import progress


def test_lines_for_long_work_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, told in ((1e-9, ["1/2", "2/2"]), (30.0, [])):
        monkeypatch.setattr(progress, "_SECONDS", seconds)
        for shown in (False, True):
            with progress.progress_bar(2, "study", "cells", shown) as bar:
                for _ in range(2):
                    bar.set_postfix(failed=1, refresh=False)
                    bar.update()
                    with bar.external_write_mode():
                        pass
            lines = capsys.readouterr().err.splitlines()
            assert [line.split()[1] for line in lines] == (told if shown else [])
            assert all(line.startswith("study: ") and "failed=1" in line for line in lines)
