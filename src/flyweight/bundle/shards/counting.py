"""How often each row of a table is asked for, counted over a user's own requests."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.read import Bundle
from flyweight.bundle.request import flat_batch
from flyweight.bundle.shards.asking import Asking
from flyweight.bundle.shards.plan import Lookup
from flyweight.bundle.values import Noticed, due_of
from flyweight.task.field import REQUEST_INDEX
from flyweight.task.progress import stage


def count_rows(
    bundle: Bundle,
    lookups: Path,
    plan: Sequence[Lookup],
    rows: Sequence[int],
    traffic: Iterable[Mapping[str, Any]],
) -> list[NDArray[np.int64]]:
    """Return, for each table, how often each of its rows is looked up.

    Args:
        lookups: the graph of places.
        rows: of each table.
        traffic: flat batches, as `Ranker.predict` takes them.

    Raises:
        InputError: a batch is not what the bundle takes.
    """
    counts = [np.zeros(own, np.int64) for own in rows]
    asking = Asking(lookups, [one.places for one in plan])
    due = {name: due_of(name, entry, bundle.vocabularies.get(name)) for name, entry in bundle.manifest.inputs.items()}
    maps = {name: np.asarray(ids, np.int64) for name, ids in bundle.manifest.id_maps.items()}
    with stage("Counting rows"):
        for batch in traffic:
            arrays, n = flat_batch(due, {k: np.asarray(v) for k, v in batch.items()}, bundle.graph.flat, Noticed(True))
            arrays |= {name: ids[arrays[name]].astype(arrays[name].dtype) for name, ids in maps.items()}
            if n is not None:
                arrays[REQUEST_INDEX] = np.arange(n, dtype=np.int64)
            for one, places in zip(plan, asking.places(arrays), strict=True):
                asked, times = np.unique(places, return_counts=True)
                counts[one.table][asked] += times
    asking.close()
    return counts
