"""Windows as Ray Data: every read task opens its files once, in order, and nothing larger than a window travels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import ray
from ray.data.block import Block, BlockAccessor, BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from idgbr.datasets.draws import Draw, DrawPlan
from idgbr.datasets.samples import read_samples

Columns = dict[str, np.ndarray]
ROWS_PER_TASK = 64
"""Windows one read task reads: enough to sort by file, few enough to start at once and to spread over nodes."""
PIXELS_PER_TASK = 2 * 2**20
"""Large windows make smaller tasks, since a task holds all of its windows."""
PIXELS_AHEAD = 3 * 2**20
"""Pixels of windows one Ray Data execution reads: what a rank holds of the plan, twice, while it trains."""


class TaskSource(Datasource):
    """A Ray Data source out of a list of functions, each of which reads some rows."""

    def __init__(self, readers: Sequence[Callable[[], Iterable[Columns]]], rows: Sequence[int], name: str) -> None:
        super().__init__()
        self._readers, self._rows, self._name = list(readers), list(rows), name

    def get_name(self) -> str:
        return self._name

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [
            ReadTask(
                functools.partial(_blocks, reader),
                BlockMetadata(num_rows=rows, size_bytes=None, input_files=None, exec_stats=None),
                per_task_row_limit=per_task_row_limit,
            )
            for reader, rows in zip(self._readers, self._rows, strict=True)
        ]


def _blocks(reader: Callable[[], Iterable[Columns]]) -> Iterator[Block]:
    for columns in reader():
        yield BlockAccessor.batch_to_block(columns)


def ordered_dataset(
    source: TaskSource, tasks: int, *, cpus: float, block_bytes: int = 8 * 2**20, share: float = 1.0
) -> ray.data.Dataset:
    """A dataset of `source` whose rows keep their order.

    Args:
        source: where the rows come from.
        tasks: how many read tasks the source has.
        cpus: logical CPUs of a read task; a fraction, as it mostly waits for the disk.
        block_bytes: size that blocks are cut to: small, so that a consumer never holds many windows.
        share: the part of the cluster's CPUs and object store this execution may use, where several run side by side.
    """
    dataset = ray.data.read_datasource(source, override_num_blocks=max(tasks, 1), num_cpus=cpus)
    context = dataset.context
    context.target_max_block_size = block_bytes
    context.target_min_block_size = 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    # A pool whose actors wait a moment would give one back, and load its model again a little later, over and over.
    context.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0
    if share < 1.0:
        total = ray.cluster_resources()
        context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
            object_store_memory=total.get("object_store_memory", 2**30) * 0.5 * share
        )
    return dataset


def rank_slice(batch: int, rank: int, world: int) -> tuple[int, int]:
    """The part [start, stop) of a global batch that `rank` of `world` computes; sizes differ by one at most."""
    return batch * rank // world, batch * (rank + 1) // world


@dataclass(frozen=True)
class PlannedWindows:
    """The training windows of a stage: a plan of draws, `batch` of them a step.

    Step s of a run consists of the draws [s * batch, (s + 1) * batch), whoever reads them.
    """

    plan: DrawPlan
    batch: int

    def read(self, draws: Sequence[Draw]) -> Columns:
        """The samples of `draws`, as `read_samples` returns them, and `index`, the draws' places in the plan."""
        columns = read_samples(self.plan.regions, draws, self.plan.window)
        return columns | {"index": np.array([draw.index for draw in draws])}


@functools.lru_cache(maxsize=2)
def _fetched(windows: ray.ObjectRef) -> PlannedWindows:
    # The plan travels once a process instead of with each task.
    return ray.get(windows)


def _read_steps(windows: ray.ObjectRef, steps: range, part: tuple[int, int]) -> Iterator[Columns]:
    planned = _fetched(windows)
    count = part[1] - part[0]
    draws = [d for step in steps for d in planned.plan.draws(step * planned.batch + part[0], count)]
    yield planned.read(draws)


def planned_batches(
    windows: PlannedWindows, start: int, stop: int, rank: int, world: int, *, cpus: float = 0.25
) -> Iterator[Columns]:
    """This rank's part of the global batches of the steps [start, stop), one dict of arrays a step, in order.

    Called on the rank itself, with the step its checkpoint holds: the plan's cursor and the weights then cannot
    disagree, and every planned draw is read exactly once at any world size and after any restart.
    """
    part = rank_slice(windows.batch, rank, world)
    count = part[1] - part[0]
    if count == 0:
        raise ValueError(f"rank {rank} of {world} has no part in a batch of {windows.batch}")
    reference = ray.put(windows)
    rows = min(ROWS_PER_TASK, PIXELS_PER_TASK // windows.plan.window**2)
    per_task = max(1, rows // count)
    steps = max(1, PIXELS_AHEAD // (count * windows.plan.window**2))
    chunks = [range(first, min(first + steps, stop)) for first in range(start, stop, steps)]

    def read(chunk: range) -> ray.data.Dataset:
        pieces = [range(s, min(s + per_task, chunk.stop)) for s in range(chunk.start, chunk.stop, per_task)]
        source = TaskSource(
            [functools.partial(_read_steps, reference, piece, part) for piece in pieces],
            [len(piece) * count for piece in pieces],
            "TrainingWindows",
        )
        return ordered_dataset(source, len(pieces), cpus=cpus, share=1.0 / world).materialize()

    # An execution whose output waits for its consumer keeps a thread of this process busy, half a core beside the
    # training. So each is run to its end, one chunk ahead, and what it read is taken from the object store.
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead:
        coming = ahead.submit(read, chunks[0]) if chunks else None
        for number in range(len(chunks)):
            assert coming is not None
            dataset = coming.result()
            coming = ahead.submit(read, chunks[number + 1]) if number + 1 < len(chunks) else None
            for batch in dataset.iter_batches(batch_size=count, batch_format="numpy", prefetch_batches=1):
                yield cast(Columns, batch)
