"""Sequences: read, split leave-one-out without a leak, and the task that is trained on them."""

from pathlib import Path

import pytest
import torch

from flyweight.errors import InputError
from flyweight.zoo import beauty, data_files
from flyweight.zoo.beauty_candidates import CANDIDATES, with_candidates
from flyweight.zoo.beauty_sasrec import beauty_sasrec, new_sasrec
from flyweight.zoo.data_files import find_data
from flyweight.zoo.tasks import ZOO

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the benchmark data are not at ../shared/data")


def written(tmp_path, text):
    path = tmp_path / "sequences.txt"
    path.write_text(text)
    return path


def rows_of(batches):
    """(history without padding, target) of each row."""
    ids, targets = batches.ids.tolist(), batches.target.tolist()
    return {(tuple(item for item in row if item), target) for row, target in zip(ids, targets, strict=True)}


def test_leave_one_out_by_hand(tmp_path):
    sequences = beauty.parse_sequences(written(tmp_path, "1 10 11 12 13 14\n2 20 21 22\n"))
    train, validation, test = beauty.leave_one_out(sequences, validation_users=2)
    assert rows_of(train) == {((10,), 11), ((10, 11), 12)}
    assert rows_of(validation) == {((10, 11, 12), 13), ((20,), 21)}
    assert rows_of(test) == {((10, 11, 12, 13), 14), ((20, 21), 22)}
    assert [items.tolist() for items in beauty.train_sequences(sequences)] == [[10, 11, 12], [20]]


def test_no_split_sees_a_target_of_a_later_one(tmp_path):
    lines = [f"{user} " + " ".join(str(100 * user + at) for at in range(1, 4 + user % 60)) for user in range(1, 90)]
    sequences = beauty.parse_sequences(written(tmp_path, "\n".join(lines)))
    train, validation, test = (rows_of(split) for split in beauty.leave_one_out(sequences, validation_users=89))
    seen = {item for history, target in train for item in (*history, target)}
    assert not seen & {target for _, target in validation | test}
    assert not {item for history, _ in validation for item in history} & {target for _, target in test}
    assert len(validation) == len(test) == 89
    assert max(len(history) for history, _ in test) == beauty.HISTORY


def test_short_sequences_have_no_row_where_there_is_no_history(tmp_path):
    sequences = beauty.parse_sequences(written(tmp_path, "1 10\n2 20 21\n"))
    train, validation, test = beauty.leave_one_out(sequences, validation_users=2)
    assert (rows_of(train), rows_of(validation), rows_of(test)) == (set(), set(), {((20,), 21)})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 5 6\n2\n", "Line 2 of sequences.txt must be a user and at least one item.*seen '2'"),
        ("1 5 x\n", "whole numbers from 1; seen '1 5 x'"),
        ("1 5 0\n", "whole numbers from 1; seen '1 5 0'"),
        ("", "sequences.txt is empty"),
    ],
)
def test_a_bad_file_is_refused_by_line(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        beauty.parse_sequences(written(tmp_path, text))


def test_another_file_of_that_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWEIGHT_DATA", str(tmp_path))
    (tmp_path / beauty.FILE).write_text("1 5 6 7\n2 5 6\n")
    with pytest.raises(InputError, match="holds 5 items of 2 users, 3 of them different; Amazon Beauty has 198,502"):
        beauty.load()


def test_a_missing_file_says_which_and_where(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWEIGHT_DATA", str(tmp_path))
    words = r"s3rec_beauty.txt is not in .*FLYWEIGHT_DATA.*set FLYWEIGHT_DATA to the folder"
    with pytest.raises(InputError, match=words):
        ZOO["beauty-sasrec"]()


def test_a_missing_file_names_the_variable_where_it_is_not_set(tmp_path, monkeypatch):
    monkeypatch.delenv("FLYWEIGHT_DATA", raising=False)
    monkeypatch.setattr(data_files, "_BESIDE", tmp_path)
    with pytest.raises(InputError, match=r"in the folder FLYWEIGHT_DATA, which is not set, nor in /.*; put it there"):
        find_data("mnist.npz")


def test_data_is_found_where_the_variable_says(tmp_path, monkeypatch):
    (tmp_path / "mnist.npz").touch()
    monkeypatch.setenv("FLYWEIGHT_DATA", str(tmp_path))
    assert find_data("mnist.npz") == tmp_path / "mnist.npz"


@needs_data
def test_beauty_is_the_data_of_the_papers():
    data, sequences = beauty.load(), beauty.read_sequences()
    assert (data.test.rows, data.validation.rows) == (22_363, 5_000)
    assert data.train.rows == sum(len(items) - 3 for items in sequences)
    history = data.test.ids[5].tolist()
    assert [item for item in history if item] == sequences[5][:-1][-50:].tolist()
    assert data.test.target[5] == sequences[5][-1]


@needs_data
def test_the_task_has_the_model_and_the_data(monkeypatch):
    """Trained for no epoch: what is trained is measured in benchmarks/retrieval.py."""
    monkeypatch.setattr("flyweight.zoo.beauty_sasrec.trained_sasrec", lambda seed, progress: (new_sasrec(), 0.0))
    task = beauty_sasrec()
    assert task.inputs["history"].rows == 12_102
    assert task.spec.name == "recall@10"


def test_candidates_are_the_next_item_and_items_that_the_history_does_not_hold(tmp_path):
    lines = "".join(f"{user} {user} {user + 1} {user + 2} {user + 3}\n" for user in range(1, 9))
    sequences = beauty.parse_sequences(written(tmp_path, lines))
    _, _, test = beauty.leave_one_out(sequences, validation_users=8)
    rows = with_candidates(test, requests=5, seed=0, items=40)
    (inputs, target), again = next(iter(rows)), next(iter(with_candidates(test, requests=5, seed=0, items=40)))[0]
    assert rows.rows == 5 * CANDIDATES
    assert target.reshape(5, -1).sum(1).tolist() == [1] * 5
    assert inputs["item_id"].equal(again["item_id"])
    positive = target == 1
    assert inputs["item_id"][positive].equal(inputs["history"][positive][:, -1] + 1)
    assert not (inputs["history"] == inputs["item_id"].unsqueeze(1)).any()
    assert not (inputs["item_id"].reshape(5, -1)[:, 1:] == inputs["item_id"].reshape(5, -1)[:, :1]).any()


@needs_data
def test_sasrec_scores_its_candidates_as_it_scores_all_items(monkeypatch):
    monkeypatch.setattr("flyweight.zoo.beauty_candidates.trained_sasrec", lambda seed, progress: (new_sasrec(), 0.0))
    task = ZOO["beauty-candidates"]()
    inputs, _, _ = next(task.batches("test"))
    few = {name: values[:4] for name, values in inputs.items()}
    all_items = task.model.encoder(few["history"])
    assert torch.allclose(task.model(**few), all_items.gather(1, few["item_id"].unsqueeze(1)).squeeze(1), atol=1e-5)
