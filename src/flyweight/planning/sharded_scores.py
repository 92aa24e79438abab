"""An exported model run over a split by many workers: shard by shard, joined in their order.

A shard is so many batches of the split, whoever runs it. Each batch is one call, as in one process, so that scores are
the same to the last bit wherever the engine and the processors are.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flyweight.engines.engine import Prepared
from flyweight.engines.registry import find_engine
from flyweight.planning.artefact import Artefact, flat_call, joined_scores
from flyweight.planning.requests import Arrays, as_arrays
from flyweight.task.runner import Runner, in_order
from flyweight.task.scores import Scores
from flyweight.task.task import Split, Task

#: Rows after which a shard ends, with the batch that they are in.
SHARD_ROWS = 1 << 14
#: The model that this process holds ready, by what tells it from others: the last one.
_ready: dict[tuple[str, str, int], Prepared] = {}


@dataclass(frozen=True, eq=False)
class _Sent:
    """An exported model on its way to a worker: the graph's file first, what tells it, inputs with a row a request."""

    files: dict[str, NDArray[Any]]
    key: tuple[str, str, int]
    requests: frozenset[str]


def sharded_scores(
    task: Task, artefact: Artefact, engine: str, threads: int, split: Split, runner: Runner
) -> Scores:
    """Return an exported model's scores of a split.

    Args:
        engine, threads: that run it, on every worker.

    Raises:
        EngineError: a worker lacks the engine, or every one that had a shard died.
    """
    targets: list[Tensor] = []
    groups: list[Tensor] = []
    shards = _shards(task, split, artefact.exported.inputs, targets, groups)
    work = partial(_scored, _sent(artefact, engine, threads))
    with closing(in_order(runner, work, shards)) as found:
        outputs = [one for shard in found for one in shard]
    return joined_scores(outputs, targets, groups)


def _shards(
    task: Task, split: Split, names: tuple[str, ...], targets: list[Tensor], groups: list[Tensor]
) -> Iterator[list[Arrays]]:
    """Yield the inputs of a split in shards; keep here what workers need not know."""
    shard: list[Arrays] = []
    rows = 0
    for inputs, target, group in task.batches(split):
        arrays = as_arrays(inputs)
        shard.append({name: arrays[name] for name in names})
        targets.append(target)
        if group is not None:
            groups.append(group)
        rows += len(target)
        if rows >= SHARD_ROWS:
            yield shard
            shard, rows = [], 0
    if shard:
        yield shard


def _sent(artefact: Artefact, engine: str, threads: int) -> _Sent:
    path = artefact.exported.path
    both = (path, path.with_name(f"{path.name}.data"))
    files = {file.name: np.fromfile(file, dtype=np.uint8) for file in both if file.exists()}
    digest = hashlib.sha256()
    for content in files.values():
        digest.update(content.data)
    return _Sent(files, (digest.hexdigest(), engine, threads), artefact.requests)


def _scored(sent: _Sent, shard: list[Arrays]) -> list[NDArray[Any]]:
    """Return the scores of each batch of a shard, on a worker."""
    calls = [flat_call({name: _writable(values) for name, values in one.items()}, sent.requests) for one in shard]
    prepared = _prepared(sent, calls[0])
    return [np.asarray(prepared.run(one)) for one in calls]


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of this process's own: a cluster's store lends them for reading, which not every engine takes."""
    return np.require(array, requirements="W")


def _prepared(sent: _Sent, first: Arrays) -> Prepared:
    """Return the model ready to run; this process keeps it for further shards.

    Args:
        first: what it is run on before its file goes: engines read it again at the first call.
    """
    if sent.key not in _ready:
        while _ready:
            _ready.popitem()[1].close()
        _, engine, threads = sent.key
        with tempfile.TemporaryDirectory(prefix="flyweight-shards-") as folder:  # a worker may be killed at any time
            for name, content in sent.files.items():
                content.tofile(Path(folder, name))
            prepared = find_engine(engine).prepare(Path(folder, next(iter(sent.files))), threads)
            prepared.run(first)
        _ready[sent.key] = prepared
    return _ready[sent.key]
