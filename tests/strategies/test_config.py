from pathlib import Path

import pytest

import tokenred as tr
from tokenred.core.errors import ConfigError, OutputExistsError, UnknownNameError
from tokenred.strategies.config import to_config
from tokenred.strategies.strategy import from_config


@pytest.mark.parametrize("options", [{}, {"reference": True}])
@pytest.mark.parametrize("name", tr.list_strategies())
def test_toml_round_trip(name: str, options: dict[str, bool], tmp_path: Path) -> None:
    made = tr.strategy(name, **options)
    text = made.to_toml(tmp_path / "s.toml")
    assert tr.Strategy.from_toml(text) == made
    assert tr.Strategy.from_toml(tmp_path / "s.toml") == made
    assert from_config(to_config(made)) == made


def test_tuples_and_selectors_come_back() -> None:
    made = tr.strategy(
        "evit", keep_rate=(0.9, 0.8), layers=(1, 2), fuser=tr.fusers.Propagate((0.1, 0.2, 0.3))
    )
    assert tr.Strategy.from_toml(made.to_toml()) == made


def test_a_file_may_name_a_recipe() -> None:
    assert tr.Strategy.from_toml('recipe = "gtp"\nP = 4\ntheta = 0.8') == tr.strategy(
        "gtp", P=4, theta=0.8
    )


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("thta = 1.0\n[scorer]\nname = 'Random'", UnknownNameError, "Did you mean 'theta'"),
        ("[scorer]\nname = 'Random'\nsede = 1", UnknownNameError, "Did you mean 'seed'"),
        ("[scorer]\nname = 'Randm'", UnknownNameError, "Did you mean 'Random'"),
        ("theta = 1.0\n", ConfigError, "needs a \\[scorer\\] table, \\[\\[steps\\]\\] or a recipe"),
        ("theta = \n", ConfigError, "not valid TOML"),
    ],
)
def test_wrong_files_are_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tr.Strategy.from_toml(text)


def test_missing_file_and_existing_output(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the file"):
        tr.Strategy.from_toml(tmp_path / "none.toml")
    path = tmp_path / "s.toml"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="Pass overwrite=True"):
        tr.strategy("gtp").to_toml(path)
    assert path.read_text() == "mine"
    tr.strategy("gtp").to_toml(path, overwrite=True)
    assert tr.Strategy.from_toml(path) == tr.strategy("gtp")


def test_unregistered_parts_have_a_fingerprint_but_no_file() -> None:
    class Mine(tr.Scorer):
        pass

    made = tr.Strategy(Mine())
    with pytest.raises(ConfigError, match="Mine is not registered"):
        made.to_toml()
    assert len(made.fingerprint()) == 16
