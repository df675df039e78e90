"""Plug-ins are found by their entry points, loaded at the first need, and left out as a whole."""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tokenred as tr
from tokenred.core import plugins
from tokenred.strategies.base import scorers

Install = Callable[..., None]

SCORER = """
import tokenred as tr

@tr.register_scorer("{name}")
class Own(tr.Scorer):
    "Scores nothing."
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package with an entry point where it is found."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_loaded", None)
    monkeypatch.delenv(plugins.SWITCH, raising=False)

    def put(package: str, code: str, value: str = "", entry: str = "parts") -> None:
        module = package.replace("-", "_")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[{plugins.GROUP}]\n{entry} = {value or module}\n" if entry else f"[{plugins.GROUP}\n"
        )
        (tmp_path / f"{module}.py").write_text(code)

    yield put
    for module in set(sys.modules) - before:
        if getattr(sys.modules[module], "__file__", "") and str(tmp_path) in str(
            sys.modules[module].__file__
        ):
            del sys.modules[module]


def test_loaded_by_the_first_look_up_that_misses(install: Install) -> None:
    assert not plugins.has_plugins()
    install("plug-a", SCORER.format(name="FromA"))
    assert plugins.has_plugins()
    assert tr.strategy("gtp", scorer="DiagAttn")
    assert "plug_a" not in sys.modules
    assert tr.strategy("gtp", scorer="froma")
    entry = scorers["FromA"]
    assert entry.plugin == "plug-a 1.0"
    assert entry.origin == "plug_a.Own (plug-in plug-a 1.0)"
    assert plugins.load_plugins() == (
        plugins.Plugin("plug-a 1.0", "parts", "plug_a", (("scorer", "FromA"),)),
    )


def test_a_function_is_called(install: Install) -> None:
    code = "def register():" + SCORER.format(name="FromB").replace("\n", "\n    ")
    install("plug-b", code, "plug_b:register")
    assert "FromB" in tr.list_scorers()


@pytest.mark.parametrize("value", ["0", "off", " False "])
def test_switched_off(install: Install, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    install("plug-a", SCORER.format(name="FromA"))
    monkeypatch.setenv(plugins.SWITCH, value)
    assert "FromA" not in tr.list_scorers()
    assert not plugins.has_plugins()
    assert plugins.load_plugins() == ()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise OSError('no disk')", "OSError: no disk"),
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("plug_bad = 3", "'int' object is not callable"),
    ],
)
def test_a_broken_one_is_undone_and_the_others_stay(
    install: Install, code: str, error: str
) -> None:
    install("plug-a", SCORER.format(name="FromA"))
    called = "plug_bad:plug_bad" if "callable" in error else ""
    install("plug-bad", SCORER.format(name="FromBad") + code, called)
    install("plug-z", SCORER.format(name="FromZ"))
    with pytest.warns(tr.errors.PluginWarning, match="'parts'.*plug-bad 1.0") as found:
        names = tr.list_scorers()
    assert len(found) == 1
    assert error in str(found[0].message)
    assert {"FromA", "FromZ"} <= set(names)
    assert "FromBad" not in names
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tr.list_scorers() == names  # told once
    assert [bool(plugin.error) for plugin in plugins.load_plugins()] == [False, True, False]


def test_entry_points_that_cannot_be_read(install: Install, tmp_path: Path) -> None:
    install("plug-a", SCORER.format(name="FromA"))
    install("plug-d", "", entry="")
    install("plug-e", SCORER.format(name="FromE"))
    (tmp_path / "plug_e-1.0.dist-info" / "METADATA").unlink()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", tr.errors.PluginWarning)
        assert "FromA" in tr.list_scorers()
    # Python's reader takes some faults in silence; it must not take the others along.
    told = any("plug_e" in str(one.message) for one in caught)
    assert told or "FromE" in tr.list_scorers()


@pytest.mark.parametrize("overwrite", ["", ", overwrite=True"])
def test_a_taken_name_is_refused_with_both_origins(install: Install, overwrite: str) -> None:
    code = SCORER.format(name="mixedattn").replace('")', f'"{overwrite})')
    install("plug-a", SCORER.format(name="New") + code.replace("Own", "Other"))
    with pytest.warns(tr.errors.PluginWarning) as found:
        names = tr.list_scorers()
    message = str(found[0].message)
    assert "plug_a.Other (plug-in plug-a 1.0)" in message
    assert "tokenred.strategies.scorers.mixed_attn.MixedAttn" in message
    assert "New" not in names
    assert tr.strategy("gtp", scorer="MixedAttn").scorer == tr.scorers.MixedAttn()


def test_of_two_plug_ins_the_first_by_name_keeps_it(install: Install) -> None:
    install("plug-z", SCORER.format(name="Same"))
    install("plug-a", SCORER.format(name="Same"))
    with pytest.warns(tr.errors.PluginWarning, match=r"plug-in plug-z.*by plug_a\.Own \(plug-in"):
        tr.list_scorers()


def test_metrics_and_backbones_are_undone_too(install: Install) -> None:
    from tokenred.analysis import list_metrics
    from tokenred.backbones import _BACKBONES

    metric = (
        "import tokenred as tr\n@tr.analysis.register_metric('{}')\ndef f(m, d, c): return {{}}\n"
    )
    backbone = "@tr.backbones.register_backbone\nclass B(tr.backbones.Backbone): pass\n"
    install("plug-bad", metric.format("depth") + backbone + "1 / 0")
    install("plug-e", metric.format("width"))
    install("plug-f", metric.format("speed"))
    before = list(_BACKBONES)
    with pytest.warns(tr.errors.PluginWarning) as found:
        names = list_metrics()
    assert [str(w.message).split("of ")[1].split()[0] for w in found] == ["plug-bad", "plug-f"]
    assert "taken by tokenred.analysis.study.metrics.speed" in str(found[1].message)
    assert "width" in names
    assert "depth" not in names
    assert before == _BACKBONES
    tr.analysis.study.metrics._METRICS.pop("width")


def test_a_model_asks_the_backbones_of_plug_ins(install: Install) -> None:
    from torch import nn

    from tokenred.backbones import _BACKBONES, adapt

    code = """
import tokenred as tr

@tr.backbones.register_backbone
class Mine(tr.backbones.Backbone):
    family = "mine"

    @classmethod
    def knows(cls, model):
        return False
"""
    install("plug-g", code)
    try:
        with pytest.raises(tr.errors.BackboneError, match="Known: mine; "):
            adapt(nn.Linear(2, 2))
    finally:
        _BACKBONES[:] = [b for b in _BACKBONES if b.__name__ != "Mine"]


def test_a_plug_in_may_look_things_up_while_it_loads(install: Install) -> None:
    install("plug-h", SCORER.format(name="FromH") + "NAMES = tr.list_scorers()")
    assert "FromH" in tr.list_scorers()
    assert "FromH" in sys.modules["plug_h"].NAMES


def test_other_threads_wait(install: Install) -> None:
    install("plug-i", "import time; time.sleep(0.2)" + SCORER.format(name="FromI"))
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append("FromI" in scorers)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4
