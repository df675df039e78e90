"""Ablation grids: many strategies, each result computed once; and the files that describe them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenred.analysis.study.cell import Cell
from tokenred.analysis.study.design import Design
from tokenred.analysis.study.engines import pick_engine
from tokenred.analysis.study.facts import Facts
from tokenred.analysis.study.plan import Plan
from tokenred.analysis.study.pool import Engine
from tokenred.analysis.study.store import Store
from tokenred.analysis.study.study import Study, run_plan
from tokenred.core.values import Compile, Count, EngineName, Magnitude, PartOf, Size, checked

if TYPE_CHECKING:
    import pandas as pd


@checked
@dataclass(eq=False)
class Grid:
    """Strategies along axes, on models and data: each point is a cell, each result computed once.

    An axis is named after what it changes: an argument of the recipe (``P``, ``keep_rate``), a
    field of `Strategy` (``theta``, ``graph``, ``schedule``), a parameter of the parts that have it
    (``aggregate``) or of one of them (``"scorer.aggregate"``); or ``base``, ``model``, ``data``,
    ``image_size``, ``dtype``, ``device``, ``compile``, ``attention``, ``threads``, ``batch_size``,
    ``limit``, ``seed``, ``budget``. Values are numbers, names, parts, or sequences of numbers,
    such as one α per block. A ``seed`` axis also seeds the parts that draw.

    Args:
        base: what each cell starts from: a recipe (``"gtp"``, ``"gtp:P=4"``, ``{"recipe": "gtp",
            "P": 4}``), a `Strategy`, a ``.toml``, or ``"dense"``.
        axes: lists of values by name; the cells are their cross product.
        model: ``"digits"`` or ``"cifar10_vit"``, a timm name, a ``.safetensors`` file or anything
            else that `tokenred.models.load_model` accepts; a mapping of its arguments with
            ``spec``; a model.
        data: ``"digits"``, a folder, an archive or anything else that `tokenred.data.open_dataset`
            accepts; a mapping of its arguments with ``source``; an `ImageDataset`; None if no
            metric needs images.
        metrics: names (``"accuracy"``, ``"speed"``, ``"memory"``, ``"split"``, see
            `register_metric`), tables of a name and options (``{"name": "speed", "pairs": 9}``), or
            functions ``(model, data, context) -> {name: number}``. GMACs and tokens are always
            included.
        limit: maximum number of images, a fixed class-balanced choice by ``seed``.
        batch_size: images per batch.
        seed: of the choice of images.
        dtype: ``"float32"``, ``"bfloat16"``, …, ``"amp:bfloat16"``; None for the model's own.
        budget: share of the dense model's GMACs that each cell may cost, like ``@0.65``.
        cells: further cells, each a mapping from names to values.
        where: given a cell's names and values (for bases, models and data, their labels), says
            whether to keep it.
        invalid: if a model cannot run a cell, ``"raise"`` before anything runs, or ``"skip"`` it
            and store the reason.
        against: ``"dense"``, ``"base"`` (what the cell starts from) or any other strategy: also run
            this, and compare each cell with it, paired by image. Unless it has a budget of its own
            (``"gtp@0.65"``), it runs at that of the cell.
        split, class_map: as in `tokenred.data.open_dataset`.
        device: where to run; None for the model's device.
        image_size: a side or (height, width) that models are resized to; None for their own.
        compile: time compiled models; or a mode of ``torch.compile``.
        attention: the attention engine, by its name (`tokenred.wrap`).
        reference: the model that timings are compared with, and that ``against="dense"`` refers to;
            None for each cell's own dense model.
        channels_last: store images and convolution weights as NHWC.
        loaders: number of image-loading processes in each worker.
        image_cache: megabytes of prepared images that a worker keeps between cells.
        name: name of the study.

    Raises:
        TokenredError: for unknown names and invalid values.
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
    against: Any = None
    split: str | None = None
    class_map: Any = None
    device: str | None = None
    image_size: Any = None
    compile: Compile = False
    attention: EngineName = "auto"
    reference: Any = None
    channels_last: bool = False
    loaders: Count = 0
    image_cache: Count = 512
    name: str = "study"
    _design: Design = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._design = Design(vars(self))

    def __len__(self) -> int:
        """The number of points, including those that ``where`` excludes."""
        return len(self._design)

    def __iter__(self) -> Iterator[Cell]:
        """The cells, with strategies and keys."""
        return iter(self.plan().cells)

    def plan(self, store: Store | str | Path | None = None) -> Plan:
        """All cells, checked; nothing runs. Models that the store knows are not even loaded."""
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
        """What would run, as a frame: one row per cell with its GMACs, tokens and status.

        Args:
            store: tells what is already done.
            engine, workers, threads: as for the run; timings taken with others do not count.
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
        """Run the cells that are not in the store.

        A cell that raises is stored with its error, and the others continue. After a kill, the same
        call continues where it stopped.

        Args:
            store: where to put the results; None for memory.
            engine: ``"serial"``, ``"processes"``, ``"ray"``, or anything with ``submit``, such as
                an executor of ``concurrent.futures`` or Dask's client.
            workers: number of workers; None for the number of cores.
            threads: CPU threads of each worker.
            address: address of a Ray cluster; None for one on this machine.
            gpus: GPUs per Ray task; None for 1 if ``device`` is a GPU.
            retries: how often a cell may be restarted after its worker died.
            retry_failed: run cells again that failed in an earlier run.
            on_error: if a cell raises, ``"keep"`` its error and continue, or ``"raise"`` it.
            wait: seconds to wait for another grid that writes to the store.
            level: level of the paired intervals.
            progress: show progress on standard error.

        Raises:
            TokenredError: before anything runs, for a cell that its model cannot run.
            StoreError: if another grid writes to the store, or the disk is full.
            EngineError: if workers cannot be started.
            StudyInterruptedError: if the user stops it (Ctrl-C).
        """
        if gpus is None:
            gpus = float(str(self.device or "").startswith("cuda"))
        chosen = pick_engine(
            engine, workers=workers, threads=threads, address=address, retries=retries, gpus=gpus
        )
        opened, path = (store, None) if isinstance(store, Store) else (None, store)
        if opened is None and not _is_new(path):
            opened = Store(path)
        try:
            # Results that are not kept need no keys.
            plan = self._plan(Facts(opened, keyed=store is not None), chosen, workers, threads)
            if opened is None:  # a new file is made for a grid that can run
                opened = Store(path)
            return run_plan(
                plan, opened, chosen, raising=on_error == "raise", retry_failed=retry_failed,
                wait=wait, level=level, progress=progress,
            )  # fmt: skip
        except BaseException:
            if opened is not None and opened is not store:
                opened.close()
            raise

    def _plan(
        self, facts: Facts, engine: Engine, workers: int | None = None, threads: int | None = None
    ) -> Plan:
        told = [engine.name, workers, threads, os.environ.get("OMP_NUM_THREADS")]
        return Plan(self._design, facts, told, self.invalid)


def _is_new(store: str | Path | None) -> bool:
    """Whether a store is a file that is yet to be made, in a folder that is there."""
    if store is None:
        return False
    path = Path(store).expanduser()
    return path.parent.is_dir() and not path.exists()


def _to_read(store: Store | str | Path | None) -> Store | None:
    """A store to read, if there is one."""
    if store is None or isinstance(store, Store):
        return store
    return Store(store, readonly=True) if Path(store).expanduser().exists() else None
