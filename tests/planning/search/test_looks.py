"""Looks at the test split: each after the first at a higher confidence, so that all together stay honest."""

import math
from pathlib import Path

import pytest

from flyweight.errors import InputError
from flyweight.planning.looks import MOST_LOOKS, confidence_of_look, note_look
from flyweight.planning.search.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    one = RunFolder(tmp_path)
    one.note(task="a task")
    return one


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_errors_of_later_looks_halve_and_together_are_no_more_than_the_first(
    folder: RunFolder, confidence: float
) -> None:
    errors = []
    for _ in range(MOST_LOOKS):
        looked = confidence_of_look(confidence, folder)
        assert 0 < looked < 1  # an interval can be made of it
        errors.append(1 - looked)
        note_look(folder, looked)
    assert errors[0] == pytest.approx(1 - confidence)
    assert errors == pytest.approx([(1 - confidence) / 2**number for number in range(MOST_LOOKS)], rel=1e-2)
    assert math.fsum(errors[1:]) <= errors[0] * (1 + 1e-9)


def test_first_look_is_not_told_and_later_ones_are_with_their_confidence(folder: RunFolder) -> None:
    assert note_look(folder, 0.95) == ()
    (words,) = note_look(folder, confidence_of_look(0.95, folder))
    assert words == "the test split was looked at for the 2. time for this search: intervals are 97.5% ones"
    note_look(folder, 0.9875)
    assert "98.75%" in note_look(folder, 0.9875)[0]


def test_without_a_folder_every_look_is_a_first_one() -> None:
    assert confidence_of_look(0.9, None) == 0.9
    assert note_look(None, 0.9) == ()


def test_too_many_looks_are_refused_with_what_to_do(folder: RunFolder) -> None:
    folder.note(looks=MOST_LOOKS)
    with pytest.raises(InputError) as error:
        confidence_of_look(0.95, folder)
    for words in (f"looked at {MOST_LOOKS} times", str(folder.path), "a test split that was not looked at"):
        assert words in str(error.value)
