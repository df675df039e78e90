"""What is known without loading."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from tests.analysis.study.test_loading import folder
from tokenred.analysis.measure.machine import weights_digest
from tokenred.analysis.study import facts as module
from tokenred.analysis.study.facts import Facts
from tokenred.analysis.study.refs import read_data, read_model
from tokenred.analysis.study.store import Store
from tokenred.core.errors import DataError, TokenredError
from tokenred.reduced.api import gmacs


def test_models(digits: nn.Module) -> None:
    found = Facts().model(read_model("digits"))
    assert found.weights == weights_digest(digits)
    assert found.gmacs == gmacs(digits)
    assert found.dtype == "float32"
    assert found.info.depth == 8
    assert Facts().model(read_model(digits)) == found


def test_what_the_store_knows_is_not_loaded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = read_model("digits"), read_data("digits", None, None)
    facts = Facts(store)
    first = facts.model(model), facts.data(data, model)
    assert facts.in_memory
    facts.keep()

    def never(*_: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(module, "load_base", never)
    monkeypatch.setattr(module, "open_data", never)
    facts = Facts(store)
    assert (facts.model(read_model("digits")), facts.data(data, model)) == first
    assert not facts.in_memory
    assert facts.weights(model) == first[0].weights
    assert facts.weights(read_model("digits")) == ""  # not asked for
    # Other splits are other data.
    with pytest.raises(AssertionError, match="loaded"):
        facts.data(read_data("digits", "train", None), model)


@pytest.mark.parametrize("where", ["info", "block"])
def test_what_another_version_knew_is_looked_up_again(store: Store, where: str) -> None:
    model = read_model("digits")
    facts = Facts(store)
    found = facts.model(model)
    facts.keep()
    stamp = model.stamp()
    assert stamp is not None
    told = store.fact(stamp)
    (told["info"] if where == "info" else told["info"]["blocks"][0])["unheard_of"] = 1
    store.remember({stamp: told})
    facts = Facts(store)
    assert facts.model(model) == found
    assert facts.in_memory


def test_a_changed_folder_is_looked_at_again(tmp_path: Path, store: Store) -> None:
    model, data = read_model("digits"), read_data(folder(tmp_path / "f"), None, None)
    facts = Facts(store)
    before = facts.data(data, model)
    facts.keep()
    assert before.images == 20
    folder(tmp_path / "f", names=("new",))
    after = Facts(store).data(data, model)
    assert (after.images, after.identity != before.identity) == (30, True)


def test_errors_come_before_anything_runs(tmp_path: Path) -> None:
    model = read_model("digits")
    with pytest.raises(DataError, match="found nothing"):
        Facts().data(read_data("gone", None, None), model)
    with pytest.raises(TokenredError):
        Facts().model(read_model("no_such_model"))
    with pytest.raises(TokenredError):
        Facts().model(read_model(nn.Linear(1, 1)))
