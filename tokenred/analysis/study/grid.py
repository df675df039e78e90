"""Ablation grids: many strategies, each result computed once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenred.analysis.study.cell import Cell
from tokenred.analysis.study.database import StoreError
from tokenred.analysis.study.engines import Engine, pick_engine
from tokenred.analysis.study.facts import Facts
from tokenred.analysis.study.plan import Design, Plan
from tokenred.analysis.study.run import Execution
from tokenred.analysis.study.store import Store
from tokenred.analysis.study.study import Study
from tokenred.core.values import Count, Magnitude, PartOf, Size, checked

if TYPE_CHECKING:
    import pandas as pd

    from tokenred.analysis.study.worker import Runner

__all__ = ["Grid"]

_MEGABYTE = 1 << 20


@checked
@dataclass(eq=False)
class Grid:
    """Strategies along axes, on models and data: each point is a cell, each result computed once.

    An axis is named after what it changes: an argument of the recipe (``P``, ``keep_rate``), a
    field of `Strategy` (``theta``, ``graph``, ``schedule``), a parameter of the parts that have it
    (``aggregate``) or of one of them (``"scorer.aggregate"``); or ``base``, ``model``, ``data``,
    ``image_size``, ``dtype``, ``device``, ``compile``, ``threads``, ``batch_size``, ``limit``,
    ``seed``, ``budget``. Values are numbers, names, parts, or rows of
    numbers, such as an α for each block. A ``seed`` axis seeds the parts that draw, too.

    Args:
        base: what each cell starts from: a recipe (``"gtp"``, ``"gtp:P=4"``, ``{"recipe": "gtp",
            "P": 4}``), a `Strategy`, a ``.toml``, or ``"dense"``.
        axes: lists of values by name; the cells are their cross product.
        model: ``"digits"``, a timm name, a ``.safetensors`` file or whatever else
            `tokenred.models.load_model` takes; a mapping of its arguments with ``spec``; a model.
        data: ``"digits"``, a folder, an archive or whatever else `tokenred.data.open_dataset`
            takes; a mapping of its arguments with ``source``; an `ImageDataset`; None where no
            metric needs images.
        metrics: names (``"accuracy"``, ``"speed"``, ``"memory"``, ``"split"``, see
            `register_metric`), tables of a name and options (``{"name": "speed", "pairs": 9}``), or
            functions ``(model, data, context) -> {name: number}``. GMACs and tokens are always
            there.
        limit: at most so many images, a fixed class-balanced choice by ``seed``.
        batch_size: images per batch.
        seed: of that choice.
        dtype: ``"float32"``, ``"bfloat16"``, …, ``"amp:bfloat16"``; None for the model's own.
        budget: share of the dense model's GMACs that each cell may cost, as ``@0.65`` does.
        cells: further cells, each a mapping from names to values.
        where: keeps a cell if it says so, given its names and values.
        invalid: ``"raise"`` before anything runs where a model cannot do a cell, or ``"skip"``:
            leave it out and store why.
        against: ``"dense"`` or ``"base"``: run that too, and compare each cell with it in pairs.
        split, class_map: of the data.
        device: where to run; None for the model's device.
        image_size: a side or (height, width) that models are resized to; None for their own.
        compile: timings are of compiled models: True, or a mode of ``torch.compile``.
        reference: a model that timings are taken against, and that ``against="dense"`` means; None
            for each cell's own dense model.
        channels_last: keep images and convolutions' weights as NHWC in memory.
        loaders: processes that load images, in each worker.
        image_cache: megabytes of prepared images that a worker keeps between cells.
        name: of the study.

    Raises:
        TokenredError: for names that are not known and values that cannot be meant.
    """

    base: Any = "gtp"
    axes: Mapping[str, Sequence[Any]] | None = None
    _: KW_ONLY
    model: Any = None
    data: Any = None
    metrics: Sequence[str | Mapping[str, Any] | Callable[..., Mapping[str, Any]]] = ("accuracy",)
    limit: Size | None = None
    batch_size: Size = 64
    seed: Count = 0
    dtype: Any = None
    budget: PartOf | None = None
    cells: Sequence[Mapping[str, Any]] | None = None
    where: Callable[[dict[str, Any]], object] | None = None
    invalid: Literal["raise", "skip"] = "raise"
    against: str | None = None
    split: str | None = None
    class_map: Any = None
    device: str | None = None
    image_size: Any = None
    compile: bool | str = False
    reference: Any = None
    channels_last: bool = False
    loaders: Count = 0
    image_cache: Count = 512
    name: str = "study"
    _design: Design = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._design = Design(vars(self))

    def __len__(self) -> int:
        """The number of points, those that ``where`` leaves out included."""
        return len(self._design.axes)

    def __iter__(self) -> Iterator[Cell]:
        """The cells, with strategies and keys.

        Raises:
            TokenredError: for a cell that its model cannot do, unless ``invalid="skip"``.
        """
        return iter(self.plan().cells)

    def plan(self, store: Store | str | Path | None = None) -> Plan:
        """All cells, checked; nothing runs. A model that the store knows is not even loaded.

        Raises:
            TokenredError: for a cell that its model cannot do, unless ``invalid="skip"``.
        """
        return self._plan(Facts(_to_read(store)), pick_engine("serial"))

    @checked
    def dry_run(
        self,
        store: Store | str | Path | None = None,
        *,
        engine: str | Engine | Any = "serial",
        workers: Size | None = None,
        threads: Size | None = None,
    ) -> pd.DataFrame:
        """What would run, as a frame: one row a cell with its GMACs, tokens and status.

        Args:
            store: says what is done already.
            engine, workers, threads: as they are to be; timings taken otherwise do not count.

        Raises:
            TokenredError: as `plan`.
        """
        found = _to_read(store)
        chosen = pick_engine(engine, workers=workers, threads=threads)
        return self._plan(Facts(found), chosen, workers, threads).frame(found)

    @checked
    def run(
        self,
        store: Store | str | Path | None = None,
        *,
        engine: str | Engine | Any = "serial",
        workers: Size | None = None,
        threads: Size | None = None,
        address: str | None = None,
        gpus: Magnitude | None = None,
        retries: Count = 2,
        retry_failed: bool = False,
        on_error: Literal["keep", "raise"] = "keep",
        wait: Magnitude = 0.0,
        level: PartOf = 0.95,
        progress: bool = True,
    ) -> Study:
        """Run what the store lacks.

        A cell that raises is stored with its error, and the others go on. Killed at any moment,
        the same call goes on where it was.

        Args:
            store: where the results go; None for memory.
            engine: ``"serial"``, ``"processes"``, ``"ray"``, or anything with ``submit``, such as
                an executor of ``concurrent.futures`` or Dask's client.
            workers: of the engine; None for as many as there are cores.
            threads: CPU threads of each worker.
            address: of a Ray cluster; None starts one on this machine.
            gpus: of each of Ray's tasks; None for 1 where ``device`` is a GPU.
            retries: how often a cell may be started again after its worker died.
            retry_failed: run the cells that failed in an earlier run again.
            on_error: ``"keep"`` the error of a cell that raises and go on, or ``"raise"`` it.
            wait: seconds to wait for another grid that writes to the store.
            level: of the paired intervals.
            progress: show a bar on a terminal.

        Raises:
            TokenredError: for a cell that its model cannot do, before anything runs.
            StoreError: where another grid writes to the store, or the disk is full.
            EngineError: where workers cannot be started.
            StudyInterruptedError: where the user stops it (Ctrl-C).
        """
        if gpus is None:
            gpus = float(str(self.device or "").startswith("cuda"))
        chosen = pick_engine(
            engine, workers=workers, threads=threads, address=address, retries=retries, gpus=gpus
        )
        opened = store if isinstance(store, Store) else Store(store)
        try:
            # What is forgotten afterwards need not be found again.
            facts = Facts(opened, keyed=store is not None)
            plan = self._plan(facts, chosen, workers, threads)
            study = Study(plan, opened, self._design.against, level)
            if plan.missing(opened, retry_failed) or plan.narrow(opened):
                with opened.writing(wait):
                    facts.keep()
                    # Another grid may have been busy meanwhile.
                    missing = plan.missing(opened, retry_failed)
                    opened.set_axes(plan.narrow(opened))
                    run = Execution(plan, opened, self._design, facts, self.name)
                    runner = self._runner(facts, raising=on_error == "raise")
                    run(chosen, runner, missing, progress)
                    study.keep_comparisons()
            elif facts.is_fresh and not opened.readonly:
                with suppress(StoreError), opened.writing():  # for a quick start next time
                    facts.keep()
        except BaseException:
            if opened is not store:
                opened.close()
            raise
        return study

    def _plan(
        self, facts: Facts, engine: Engine, workers: int | None = None, threads: int | None = None
    ) -> Plan:
        told = [engine.name, workers, threads, os.environ.get("OMP_NUM_THREADS")]
        return Plan(self._design, facts, told, self.invalid)

    def _runner(self, facts: Facts, raising: bool) -> Runner:
        # Brings timm with it, which the second start of a finished grid has no use for.
        from tokenred.analysis.study.worker import Runner

        design, reference = self._design, self._design.reference
        if reference is not None:
            facts.model(reference)
        return Runner(
            models=tuple(design.models),
            data=tuple(design.datasets),
            weights=tuple(facts.weights(model) for model in design.models),
            contents=tuple(facts.content(data) for data in design.datasets),
            metrics=design.metrics,
            axes=design.axes.names,
            channels_last=self.channels_last,
            raising=raising,
            loaders=self.loaders,
            room=self.image_cache * _MEGABYTE,
            reference=None if reference is None else design.place(reference),
            bases={design.models.index(ref): model for ref, model in facts.in_memory},
        )


def _to_read(store: Store | str | Path | None) -> Store | None:
    """A store to look into, where there is one."""
    if store is None or isinstance(store, Store):
        return store
    return Store(store, readonly=True) if Path(store).expanduser().exists() else None
