"""Where rows lie, and what stands in for them."""

from pathlib import Path

import numpy as np
import pytest
import tiny_models
from shard_servers import shards_of

from flyweight.bundle.samples import ArrayEntry
from flyweight.bundle.shards.places import Places, rows_in, runs_of
from flyweight.bundle.shards.plan import Piece, ShardedTable
from flyweight.bundle.shards.shard import shard
from flyweight.bundle.shards.shard_folder import open_shard
from flyweight.bundle.shards.stand_ins import stand_ins_of
from flyweight.bundle.write import write_bundle


def table(*pieces: tuple[int, int, list[int]]) -> ShardedTable:
    stand_ins = ArrayEntry(dtype="int16", shape=[1], values=[0])
    made = [Piece(start=start, stop=stop, shards=shards) for start, stop, shards in pieces]
    return ShardedTable(
        name="t", rows=pieces[-1][1], row=[], dtype="int16", pieces=made, edges=[0], stand_ins=stand_ins, stand_in=""
    )


@pytest.mark.parametrize(
    ("shards", "pieces"),
    [
        (2, [(0, 11, [0, 1])]),
        (3, [(0, 11, [0, 1, 2])]),
        (3, [(0, 4, [2]), (4, 11, [0]), (11, 30, [2, 1]), (30, 31, [2])]),
        (12, [(0, 100, list(range(12)))]),
    ],
)
def test_every_row_lies_in_one_place_and_is_found_there(
    shards: int, pieces: list[tuple[int, int, list[int]]]
) -> None:
    split = table(*pieces)
    stored = [
        [row for run in runs_of(split, number) for row in range(run.start, run.stop, run.step)]
        for number in range(shards)
    ]
    assert sorted(row for own in stored for row in own) == list(range(split.rows))
    assert [rows_in(split, number) for number in range(shards)] == [len(own) for own in stored]
    asked = np.random.default_rng(0).integers(0, split.rows, 200)
    seen = np.full(200, -1)
    for number, own, places in Places(split, shards).by_shard(asked):
        seen[own] = np.array(stored[number])[places]
    assert np.array_equal(seen, asked)


def test_shards_hold_the_rows_that_the_plan_says(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "r.fly", tiny_models.contents(tmp_path / "e"))
    found = shard(path, tmp_path / "s.fly", shards=3, over=1)
    users, codes = (tiny_models.weights()[name] for name in ("users", "codes"))
    for number, folder in enumerate(shards_of(found.path, 3)):
        one, other = open_shard(folder).tables
        assert np.array_equal(one.view(np.float32).reshape(-1, users.shape[1]), users[number::3])
        assert np.array_equal(other, codes[number::3])


def test_mean_row_is_weighted_by_counts_part_by_part() -> None:
    rows = np.array([[1.0, 0.0], [4.0, 3.0], [10.0, 10.0], [20.0, 30.0]], np.float32)
    counts = np.array([2, 1, 0, 0])
    found = stand_ins_of(rows, [0, 2], counts, numbers=True)
    assert found.dtype == np.float32
    assert found.tolist() == [[2.0, 1.0], [15.0, 20.0]]  # nobody asked for the second part: each row counts once


def test_commonest_code_is_weighted_by_counts() -> None:
    codes = np.array([3, 3, 5, 5, 5, 9], np.uint8)
    assert stand_ins_of(codes, [0], None, numbers=False).tolist() == [5]
    assert stand_ins_of(codes, [0, 5], np.array([4, 0, 1, 1, 1, 0]), numbers=False).tolist() == [3, 9]


def test_code_nearest_to_the_mean_codeword_stands_in() -> None:
    words = np.array([[0.0], [1.0], [10.0]], np.float32)
    codes = np.array([0, 0, 2, 1], np.int16)  # mean 2.75
    assert stand_ins_of(codes, [0], None, numbers=False, codewords=words).tolist() == [1]
    assert stand_ins_of(codes, [0], np.array([0, 0, 9, 1]), numbers=False, codewords=words).tolist() == [2]


def test_traffic_weights_the_stand_ins(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "r.fly", tiny_models.contents(tmp_path / "e"))
    batch = {"user_id": np.array([3, 3, 3, 5]), "item_id": np.array([1, 1, 1, 2]), "price": np.zeros(4, np.float32)}
    found = shard(path, tmp_path / "s.fly", shards=2, over=1, traffic=[batch])
    users, codes = found.plan.tables
    w = tiny_models.weights()
    np.testing.assert_allclose(users.stand_ins.values, (3 * w["users"][3] + w["users"][5]) / 4, rtol=1e-6)
    words = w["codebook"]
    mean = (3 * words[w["codes"][1]] + words[w["codes"][2]]) / 4
    nearest = min(set(w["codes"].tolist()), key=lambda one: float(np.square(words[one] - mean).sum()))
    assert codes.stand_ins.values == [nearest]
    assert codes.stand_in.startswith("the codeword nearest to the mean row of the table, each row counted as often")
    assert users.stand_in == "the mean row of the table, each row counted as often as 4 lookups asked for it"
