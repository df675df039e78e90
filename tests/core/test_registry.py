import pytest

import tokenred as tr
from tokenred.core.registry import Registry


@pytest.fixture
def registry() -> Registry[tr.Scorer]:
    return Registry("scorer", "scorers", "tokenred.strategies.base.Scorer", "json")


def _norm(registry: Registry[tr.Scorer]) -> type[tr.Scorer]:
    @registry.register("NormAttn")
    class NormAttn(tr.Scorer):
        """By norm."""

        power: float = 1.0

    return NormAttn


def test_lookup_ignores_case(registry: Registry[tr.Scorer]) -> None:
    made = _norm(registry)
    assert registry["normattn"].make is made
    assert "NORMATTN" in registry
    assert registry["normattn"].summary == "By norm."
    assert registry["normattn"].source.endswith("NormAttn")
    assert registry.names() == ["NormAttn"]
    assert registry.name_of(made()) == "NormAttn"
    assert registry.name_of(object()) is None


def test_a_class_without_a_docstring_has_no_summary(registry: Registry[tr.Scorer]) -> None:
    @registry.register("Silent")
    class Silent(tr.Scorer):
        power: float = 1.0

    assert registry["Silent"].summary == ""


def test_running_the_cell_again_replaces(registry: Registry[tr.Scorer]) -> None:
    first, second = _norm(registry), _norm(registry)
    assert first is not second
    assert registry["NormAttn"].make is second


def test_a_taken_name_is_refused(registry: Registry[tr.Scorer]) -> None:
    _norm(registry)

    class Other(tr.Scorer):
        pass

    with pytest.raises(tr.errors.ConfigError, match=r"taken by .*NormAttn; choose another name"):
        registry.register("normattn")(Other)
    registry.register("normattn", overwrite=True)(Other)
    assert registry["NormAttn"].make is Other


def test_unknown_name_suggests(registry: Registry[tr.Scorer]) -> None:
    _norm(registry)
    with pytest.raises(tr.errors.UnknownNameError, match="Did you mean 'NormAttn'"):
        registry["NromAttn"]
    with pytest.raises(tr.errors.UnknownNameError, match="Did you mean 'MixedAttn'"):
        tr.strategy("gtp", scorer="MixdAttn")
    with pytest.raises(
        tr.errors.UnknownNameError, match=r"unknown strategy 'gpt'.*'gtp'.*your own, import"
    ):
        tr.strategy("gpt")
    with pytest.raises(tr.errors.UnknownNameError, match=r"scorer 'prune'.* It is a fuser\."):
        tr.strategy("gtp", scorer="prune")
    with pytest.raises(tr.errors.UnknownNameError, match=r"It is a scorer, .*'gtp:scorer=CosSim'"):
        tr.strategy("CosSim")


def test_wrong_kinds_are_refused(registry: Registry[tr.Scorer]) -> None:
    with pytest.raises(tr.errors.PartError, match=r"must derive from tokenred\.Scorer"):
        registry.register("x")(tr.Fuser)
    with pytest.raises(tr.errors.PartError, match="must be callable"):
        registry.register("x")(3)  # type: ignore[type-var]
    with pytest.raises(tr.errors.ConfigError, match="needs a name"):
        registry.register(" ")
    with pytest.raises(tr.errors.PartError, match="Write it with parentheses"):
        registry.create(_norm(registry))  # type: ignore[arg-type]


def test_create_leaves_aside_what_a_part_does_not_have(registry: Registry[tr.Scorer]) -> None:
    made = _norm(registry)
    assert registry.create("NormAttn", power=2.0, alpha=3.0) == made(2.0)
    part = made(4.0)
    assert registry.create(part, power=2.0) is part
