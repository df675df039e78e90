"""A small grid in a store, and frames of other measurements."""

from pathlib import Path

import pandas as pd
import pytest

from tokenred.analysis.study.grid import Grid

EVIL = "<script>document.body.dataset.hacked = 'yes'</script>"


def fragile(model, data, context):  # type: ignore[no-untyped-def]
    """A metric that some cells do not survive."""
    if model.strategy.theta == 0.5:
        raise RuntimeError(f"no luck {EVIL}")
    return {"luck": 7.0}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five cells, one of which failed, and the dense model."""
    path = tmp_path_factory.mktemp("report") / "runs.db"
    Grid(
        "gtp",
        {"alpha": [0.1, 0.3], "P": [3, 5]},
        cells=[{"alpha": 0.1, "P": 3, "theta": 0.5}],
        model="digits",
        data="digits",
        limit=20,
        metrics=["accuracy", fragile],
        against="dense",
    ).run(path, progress=False)
    return path


@pytest.fixture
def comparison() -> pd.DataFrame:
    """Rows as `Comparison` has them, one with a name that would run."""
    rows = [{"strategy": "dense", "method": "dense", "gmacs": 4.0, "top1": 80.0, "config": ""}]
    for i, name in enumerate(["gtp@0.5", EVIL]):
        loss = 1.0 + i
        rows.append({
            "strategy": name, "method": name, "gmacs": 2.0 + i, "top1": 80 - loss,
            "difference": -loss, "difference_low": -loss - 1, "difference_high": -loss + 1,
            "p_value": 0.01, "config": f'{{"scorer": "{name}"}}',
        })  # fmt: skip
    return pd.DataFrame(rows).assign(
        model="ViT", data="digits", images=500, seed=0, torch="2.9", tokens="64 60 50 40 30"
    )


@pytest.fixture
def sweep() -> pd.DataFrame:
    """Rows as a sweep has them; the last cell failed."""
    rows = [
        {"strategy": s, "batch_size": b, "speedup": x, "speedup_low": x - 0.1, "gmacs": 2.0,
         "speedup_high": x + 0.1, "allowed": 1.4, "status": "done", "error": ""}
        for s, b, x in (("gtp", 1, 0.9), ("gtp", 8, 1.3), ("tome", 1, 1.0), ("tome", 8, 1.2))
    ]  # fmt: skip
    rows.append({"strategy": "evit", "batch_size": 8, "status": "failed", "error": "no memory"})
    return pd.DataFrame(rows).assign(
        model="ViT", image_size="32x32", dtype="float32", compile="false", method="x"
    )


@pytest.fixture
def curves() -> pd.DataFrame:
    """Rows as an oversmoothing measurement has them."""
    rows = []
    for strategy in ("dense", "gtp"):
        for layer in range(3):
            value = 0.3 + 0.1 * layer - 0.05 * (strategy == "gtp")
            rows.append({
                "strategy": strategy, "layer": layer, "statistic": "cosine", "mean": value,
                "low": value - 0.01, "high": value + 0.01, "difference": -0.05,
                "difference_low": -0.06, "difference_high": -0.04, "tokens": 9, "gmacs": 1.0,
            })  # fmt: skip
    return pd.DataFrame(rows).assign(model="ViT", data="digits", method="x", images=10)
