"""Amazon Beauty, 5-core, as sequences: which item does a user review next?

The file (McAuley et al. 2015; as prepared by S3-Rec, Zhou et al. 2020, arXiv 2008.07873; for research use, not to be
passed on) is not part of any package: it is looked for by `find_data`. A line is a user and the items in time order.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from flyweight.errors import InputError
from flyweight.task.field import Field
from flyweight.zoo.batches import Batches
from flyweight.zoo.cache import fingerprint
from flyweight.zoo.data_files import find_data
from flyweight.zoo.dataset import Dataset

FILE = "s3rec_beauty.txt"
USERS, ITEMS, INTERACTIONS = 22_363, 12_101, 198_502
#: Histories are cut to so many items, as in the papers that report SASRec on Amazon Beauty.
HISTORY = 50
#: Of the draw of validation users and the order of the training rows; the same for every seed of training.
SPLIT_SEED = 2025

Sequence = NDArray[np.int32]


def load(validation_users: int = 5_000, size: int = 256) -> Dataset:
    """Return Amazon Beauty's histories (rows, 50; 0 pads before) and the id of the item that came next.

    Leave-one-out (SASRec's paper, section IV.A); see `leave_one_out`. `validation` is a random part of the users:
    search scores it many times, and 12,102 scores a row weigh 48 KB.

    Raises:
        InputError: the file is not there or is not Amazon Beauty; says where it was looked for.
    """
    sequences = read_sequences()
    train, validation, test = leave_one_out(sequences, validation_users, size)
    print_of_train = fingerprint({"ids": train.ids.numpy(), "target": train.target.numpy()})
    fields = {"history": Field("request", ITEMS + 1)}
    return Dataset("beauty", fields, train, validation, test, print_of_train)


def read_sequences() -> list[Sequence]:
    """Return each user's items of Amazon Beauty in time order; ids from 1.

    Raises:
        InputError: the file is not there or is not Amazon Beauty.
    """
    path = find_data(FILE)
    sequences = parse_sequences(path)
    seen = (len(sequences), len(np.unique(np.concatenate(sequences))), sum(map(len, sequences)))
    if seen != (USERS, ITEMS, INTERACTIONS):
        raise InputError(
            f"{path.name} holds {seen[2]:,} items of {seen[0]:,} users, {seen[1]:,} of them different; Amazon Beauty "
            f"has {INTERACTIONS:,}, {USERS:,} and {ITEMS:,}. Take the file of the S3-Rec repository."
        )
    return sequences


def parse_sequences(path: Path) -> list[Sequence]:
    """Return the items of each line, a user and then items, as whole numbers from 1.

    Raises:
        InputError: a line holds no item, or something else than whole numbers from 1; names the line.
    """
    sequences = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        _, *items = line.split() or [""]
        if not items or not all(item.isdecimal() and int(item) for item in items):
            raise InputError(
                f"Line {number} of {path.name} must be a user and at least one item, items as whole numbers from 1; "
                f"seen {line[:60]!r}."
            )
        sequences.append(np.array(items, dtype=np.int32))
    if not sequences:
        raise InputError(f"{path.name} is empty; it must hold a line for each user.")
    return sequences


def leave_one_out(
    sequences: list[Sequence], validation_users: int, size: int = 256
) -> tuple[Batches, Batches, Batches]:
    """Return train, validation and test: the last item of a user is the test, the one before it validation.

    Every earlier item but the first is a training target, and each target has the items before it as history, the
    newest 50. Train rows are shuffled. Users of fewer than three items have no validation row, of fewer than two no
    test row.
    """
    random = [np.random.default_rng(SPLIT_SEED) for _ in range(2)]
    users = random[0].permutation(len(sequences))
    ends = [(user, at) for user, items in enumerate(sequences) for at in range(1, len(items) - 2)]
    order = random[1].permutation(len(ends))
    last = [(user, len(items) - 1) for user, items in enumerate(sequences)]
    drawn = [(user, len(sequences[user]) - 2) for user in users[:validation_users].tolist()]
    return (
        _histories(sequences, [ends[i] for i in order], size),
        _histories(sequences, [(user, at) for user, at in drawn if at > 0], size),
        _histories(sequences, [(user, at) for user, at in last if at > 0], size),
    )


def train_sequences(sequences: list[Sequence]) -> list[Sequence]:
    """Return the sequences that training may see: without the last two items, the test's and validation's."""
    return [items[:-2] for items in sequences]


def _histories(sequences: list[Sequence], ends: list[tuple[int, int]], size: int) -> Batches:
    """Return a row for each (user, place of the target): the items before it and the target's id."""
    history = np.zeros((len(ends), HISTORY), dtype=np.int32)
    for row, (user, at) in enumerate(ends):
        newest = sequences[user][max(0, at - HISTORY) : at]
        history[row, HISTORY - len(newest) :] = newest
    target = np.array([sequences[user][at] for user, at in ends], dtype=np.int32)
    return Batches({"history": HISTORY}, torch.from_numpy(history), torch.from_numpy(target), {}, size)
