"""A copy with coded tables as the teacher: the step's words, and that students learn from it."""

import copy

import pytest
import torch

import flyweight as fw
from flyweight.planning.step_words import words_of
from flyweight.tables.coded_teacher import CodedTeacher
from flyweight.tables.sizes import table_bytes
from small_tasks import Ranker, seeded, trained_task


@pytest.fixture(scope="module")
def task() -> fw.Task:
    return trained_task(seeded(Ranker))


@pytest.fixture(scope="module")
def change(task: fw.Task) -> fw.Change:
    return CodedTeacher(ratio=20).apply(task)


def test_the_model_stays_and_the_teacher_is_a_copy_with_coded_tables(task: fw.Task, change: fw.Change) -> None:
    assert change.model is task.model
    assert change.teacher is not None
    assert table_bytes(change.teacher) <= table_bytes(task.model) / 20
    after = task.after(change)
    assert after.teacher is change.teacher
    assert after.original is task.original
    assert task.teacher is task.original  # the task it was made of has its own still


def test_later_steps_keep_the_teacher(task: fw.Task, change: fw.Change) -> None:
    taught = task.after(change)
    pruned = taught.after(fw.Prune(ratio=0.5, multiple=1, force=True).apply(taught))
    assert pruned.teacher is change.teacher


def test_students_learn_what_it_says_and_not_what_the_original_says(task: fw.Task, change: fw.Change) -> None:
    taught = task.after(change)
    students = {
        name: fw.Distill(epochs=4, lr=0.01, tables=True).apply(one.with_model(copy.deepcopy(seeded(Ranker)))).model
        for name, one in (("coded", taught), ("original", task))
    }
    inputs, _, _ = next(task.batches("train"))
    assert change.teacher is not None
    with torch.no_grad():
        coded, original = change.teacher.eval()(**inputs), task.original.eval()(**inputs)
        said = {name: student.eval()(**inputs) for name, student in students.items()}
    assert (said["coded"] - coded).square().mean() < (said["coded"] - original).square().mean()
    assert (said["original"] - original).square().mean() < (said["original"] - coded).square().mean()


def test_its_tables_are_the_originals_coded_also_after_other_steps(task: fw.Task, change: fw.Change) -> None:
    coded = fw.EncodeTables(ratio=100).apply(task)
    late = CodedTeacher(ratio=20).apply(task.after(coded))
    assert late.model is coded.model
    assert late.teacher is not None
    assert change.teacher is not None
    inputs, _, _ = next(task.batches("validation"))
    with torch.no_grad():
        torch.testing.assert_close(late.teacher.eval()(**inputs), change.teacher.eval()(**inputs))


def test_the_record_says_it_in_words_and_in_a_plan(task: fw.Task, change: fw.Change) -> None:
    (record,) = change.done
    ratio = record["bytes_before"] / record["bytes_after"]
    assert ratio >= 20
    (words,) = words_of((change,))
    assert f"a copy with tables {ratio:,.0f} times smaller" in words
    assert "teaches" in words
    assert change.settings == {"ratio": 20, "seed": 0}
    assert {one["name"] for one in record["plan"]} == {"user", "item"}


@pytest.mark.parametrize("settings", [{}, {"ratio": 2, "codings": {"item": [{"stop": 1, "coding": "one vector"}]}}])
def test_exactly_one_way_to_say_the_coding_is_taken(settings: dict[str, object]) -> None:
    with pytest.raises(fw.InputError):
        CodedTeacher(**settings)  # type: ignore[arg-type]
