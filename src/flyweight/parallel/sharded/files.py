"""What a training with tables over processes leaves in a folder, rows by rank, and a model made of it again."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.parallel.sharded.model import ShardedModel
from flyweight.parallel.sharded.plan import PlacedTable, RowShard, TablePlan
from flyweight.task.change import Skipped

FORMAT = 1
PLAN, DENSE = "plan.json", "dense.npz"


def save_shards(sharded: ShardedModel, folder: Path) -> None:
    """Write the rows of this rank, a NumPy file for each part of a table."""
    places = {table.name: number for number, table in enumerate(sharded.plan.tables)}
    for held in sharded.rows():
        _whole(folder / _file(places[held.table], held.start), held.values.cpu().numpy())


def save_rest(sharded: ShardedModel, folder: Path) -> None:
    """Write the plan and all weights that every rank holds alike."""
    state = {name: value.detach().cpu().numpy() for name, value in sharded.body.state_dict().items()}
    with (folder / DENSE).open("wb") as file:
        np.savez(file, **state)
    about = {"format": FORMAT, **asdict(sharded.plan)}
    (folder / PLAN).write_text(json.dumps(about, indent=1) + "\n")


def read_placed(folder: Path) -> TablePlan:
    """Return where rows went, as rank 0 wrote it.

    Raises:
        InputError: the folder holds no plan, or a damaged one.
    """
    try:
        told = json.loads((folder / PLAN).read_text())
        if told.pop("format") != FORMAT:
            raise ValueError(f"another format than {FORMAT}")
        tables = [
            PlacedTable(**{**table, "shards": tuple(RowShard(**shard) for shard in table["shards"])})
            for table in told["tables"]
        ]
        return TablePlan(told["ranks"], tuple(tables), tuple(Skipped(**one) for one in told["whole"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / PLAN} is no plan of tables ({error}); train anew into that folder.") from error


def gather_model(model: nn.Module, plan: TablePlan, folder: Path) -> nn.Module:
    """Put the weights that ranks left in a folder into a model, in place, and return it in evaluation mode.

    Args:
        model: as it was before; tables on the device "meta" are made in main memory.
        plan: where its rows went; those of a table that the model never looked up are nowhere and stay.

    Raises:
        InputError: parts of a table are missing: another host wrote them.
    """
    for number, table in enumerate(plan.tables):
        weight = model.get_submodule(table.name).weight
        assert isinstance(weight, Tensor)
        parts = {shard.start: folder / _file(number, shard.start) for shard in table.shards}
        there = {start: path for start, path in parts.items() if path.exists()}
        if not there:
            continue
        if len(there) < len(parts):
            missing = next(path for path in parts.values() if not path.exists())
            raise InputError(f"{folder} lacks {missing.name} of table {table.name!r}; copy it there from its host.")
        _fill(weight, there)
    with np.load(folder / DENSE, allow_pickle=False) as kept:
        state = {name: torch.from_numpy(kept[name]) for name in kept.files}
    model.load_state_dict(state, strict=False)
    return model.eval()


def state_arrays(model: nn.Module) -> Mapping[str, NDArray[Any]]:
    """Return all weights of a model by name."""
    return {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}


def _fill(weight: Tensor, parts: Mapping[int, Path]) -> None:
    for start, path in parts.items():
        rows = np.load(path, mmap_mode="c", allow_pickle=False)
        with torch.no_grad():
            weight[start : start + len(rows)] = torch.from_numpy(rows)


def _file(number: int, start: int) -> str:
    return f"table-{number:03d}-from-{start:012d}.npy"


def _whole(path: Path, values: NDArray[Any]) -> None:
    """Write a file that is whole or absent."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, values)
    os.replace(part, path)
