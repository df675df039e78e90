"""What a worker does with a task."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis.measure.accuracy import evaluate
from tokenred.analysis.measure.machine import weights_digest
from tokenred.analysis.study import worker
from tokenred.analysis.study.cell import Setting, Task
from tokenred.analysis.study.metrics import read_metrics
from tokenred.analysis.study.packing import unpack
from tokenred.analysis.study.refs import read_data, read_model
from tokenred.analysis.study.worker import Runner

STRATEGY = tr.strategy("gtp", P=7)


def runner(models: tuple[Any, ...] = ("digits",), **options: Any) -> Runner:
    refs = tuple(read_model(model) for model in models)
    told: dict[str, Any] = {
        "models": refs,
        "data": (read_data("digits", None, None),),
        "weights": tuple(weights_digest(tr.models.load_model("digits")) for _ in refs),
        "metrics": read_metrics(["accuracy"]),
        "batch_size": 8,
        "context": 1 << 24,
    }
    return Runner(**{**told, **options})


def task(strategy: tr.Strategy = STRATEGY, **setting: Any) -> Task:
    told = {"model": 0, "data": 0, "dtype": None, "limit": 20, "seed": 0}
    return Task("k", strategy, Setting(**{**told, **setting}))


def test_is_what_evaluate_says(digits: nn.Module) -> None:
    run = runner()
    expected = evaluate(
        tr.wrap(digits, STRATEGY), "digits", limit=20, seed=4, batch_size=8, progress=False
    )
    for _ in range(2):  # the second with images that are kept
        outcome = run(task(seed=4))
        assert (outcome.status, outcome.error) == ("done", "")
        assert outcome.metrics["top1"] == expected.top1
        assert outcome.packed is not None
        assert unpack(outcome.packed.labels)["index"].tolist() == expected.index.tolist()
        assert unpack(outcome.packed.answers)["rank"].tolist() == expected.rank.tolist()
    assert outcome.metrics["gmacs"] == tr.gmacs(tr.wrap(digits, STRATEGY))
    assert outcome.metrics["tokens"].split() == [str(64 - 7 * i) for i in range(9)]
    assert outcome.machine["torch"] == str(torch.__version__)
    assert outcome.seconds > 0


def test_models_and_images_stay_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    real_base, real_data = worker.load_base, worker.open_data
    monkeypatch.setattr(
        worker, "load_base", lambda ref: (loaded.append("model"), real_base(ref))[1]
    )
    monkeypatch.setattr(worker, "open_data", lambda *a: (loaded.append("data"), real_data(*a))[1])
    run = runner()
    for alpha in (0.1, 0.2, 0.3):
        assert run(task(tr.strategy("gtp", P=4, alpha=alpha))).status == "done"
    assert loaded == ["model", "data"]
    run(task(limit=5))
    assert loaded == ["model", "data", "data"]
    # Of many only the last two stay.
    for seed in range(4):
        run(task(seed=seed, limit=5))
    assert len(run._images) == 2


def test_types(digits: nn.Module) -> None:
    before = copy.deepcopy(digits.state_dict())
    run = runner(("digits", digits))
    for dtype in ("float64", "bfloat16", "amp:bfloat16", None):
        for model in (0, 1):
            outcome = run(task(dtype=dtype, model=model, limit=10))
            assert outcome.status == "done", outcome.error
    # The user's own model is as it was.
    assert all(torch.equal(v, before[k]) for k, v in digits.state_dict().items())


def test_what_a_cell_raises_is_its_outcome() -> None:
    run = runner()
    for bad in (task(tr.strategy("gtp", P=30)), task(dtype="float8")):
        outcome = run(bad)
        assert outcome.status == "failed"
        assert outcome.error.startswith(("ScheduleError: ", "ConfigError: "))
        assert "Traceback" in outcome.traceback
        assert outcome.packed is None
    assert run(task()).status == "done"


def test_other_weights_than_planned_are_refused() -> None:
    outcome = runner(weights=("0123456789abcdef",))(task())
    assert outcome.status == "failed"
    assert "not those of the plan" in outcome.error


def test_travels_without_what_it_has_loaded() -> None:
    run = runner()
    run(task())
    again = pickle.loads(pickle.dumps(run))
    assert not again._models
    assert not again._images
    assert len(pickle.dumps(run)) < 20_000
    assert again(task()).metrics == run(task()).metrics


def test_random_numbers_are_left_alone_and_the_same_in_each_cell() -> None:
    def draw(model: Any, data: Any, context: Any) -> dict[str, Any]:
        return {"drawn": float(torch.rand(())), "array": torch.arange(2), "drawn_by": context.seed}

    run = runner(metrics=read_metrics([draw]))
    state = torch.random.get_rng_state()
    one, two, other = run(task()), run(task()), run(task(seed=1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.metrics["drawn"] == two.metrics["drawn"] != other.metrics["drawn"]
    assert one.metrics["array"] == [0, 1]


def test_learned_parts_of_a_reduced_model_go_along(digits: nn.Module) -> None:
    with pytest.warns(UserWarning, match="never trained"):
        trained = tr.wrap(digits, "dynamicvit")
    run = runner((trained,))
    outcome = run(task(trained.strategy))  # an untrained part would warn, and so raise here
    assert outcome.status == "done", outcome.error
