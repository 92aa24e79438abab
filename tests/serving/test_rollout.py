"""Which versions are held and which answer, after each change."""

from dataclasses import asdict, replace

import orjson
import pytest

from flyweight.errors import InputError
from flyweight.serving.rollout import MOST_HELD, Canary, Rollout, Shadow, begun_with, rollout_of
from flyweight.serving.settings import Source


def source(version: str) -> Source:
    return Source("ranker", f"/bundles/{version}", version, digest=version * 64)


def rollout(*versions: str, keep: int = 1) -> Rollout:
    """One in which each version came to answer after the one before."""
    found = begun_with(source(versions[0]))
    for version in versions[1:]:
        found = found.holding(source(version)).activating(version, keep)
    return found


def test_a_new_version_answers_and_the_one_before_is_held() -> None:
    found = rollout("1", "2")
    assert (found.answering, found.before, list(found.versions)) == ("2", ("1",), ["1", "2"])


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_only_as_many_old_versions_are_held_as_are_kept(keep: int) -> None:
    found = rollout("1", "2", "3", "4", keep=keep)
    assert len(found.before) == keep
    assert set(found.versions) == {"4", *found.before}
    assert found.newest == 4


def test_going_back_frees_the_version_that_answered_and_ends_the_canary() -> None:
    canary = replace(rollout("1", "2").holding(source("3")), canary=Canary("3", 10))
    back = canary.going_back()
    assert (back.answering, back.before, back.canary, list(back.versions)) == ("1", (), None, ["1", "3"])
    with pytest.raises(InputError, match=r"no version from before to go back to; there is '1', '3', and '1' answers"):
        back.going_back()


def test_a_canary_that_comes_to_answer_is_no_canary_any_more() -> None:
    canary = replace(rollout("1").holding(source("2")), canary=Canary("2", 10), shadow=Shadow("2"))
    promoted = canary.activating("2", 1)
    assert (promoted.answering, promoted.before, promoted.canary, promoted.shadow) == ("2", ("1",), None, None)


def test_a_version_with_a_part_is_held_whatever_is_kept() -> None:
    shadowed = replace(rollout("1", "2"), shadow=Shadow("1"))
    third = shadowed.holding(source("3")).activating("3", 0)
    assert set(third.versions) == {"1", "3"}


def test_without_the_version_that_answers_the_one_before_does() -> None:
    assert rollout("1", "2").without(["2"]).answering == "1"
    assert rollout("1", "2").without(["1", "2"]).answering is None
    assert rollout("1", "2").without(["1", "2"]).held == ()


def test_every_rollout_is_the_same_after_its_way_over_the_wire() -> None:
    for one in (
        rollout("1"),
        rollout("1", "2").unloaded(),
        replace(rollout("1", "2"), canary=Canary("1", 2.5, "user_id"), shadow=Shadow("1", 50, 5)),
    ):
        assert rollout_of(orjson.loads(orjson.dumps(asdict(one)))) == one


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.activating("9", 1), "holds no version '9'; there is '1', '2', and '2' answers"),
        (lambda one: one.retiring("2"), "Version '2' answers; let another one answer first"),
        (lambda one: one.retiring("9"), "holds no version '9'"),
        (lambda one: replace(one, canary=Canary("2", 5)), "Version '2' answers, so it cannot be the canary"),
        (lambda one: replace(one, shadow=Shadow("7")), "holds no version '7', which is the shadow"),
        (lambda one: replace(one, canary=Canary("1", 5)).retiring("1"), "Version '1' is the canary; end that first"),
        (lambda one: replace(one, canary=Canary("1", 101)), "percent must be from 0 to 100; seen 101"),
        (lambda one: replace(one, canary=Canary("1", float("nan"))), "percent must be from 0 to 100; seen nan"),
        (lambda one: replace(one, shadow=Shadow("1", top=0)), "top must be a whole number from 1 to 10,000; seen 0"),
        (lambda one: one.holding(source("2")), "two versions have one name"),
    ],
)
def test_impossible_changes_are_refused_in_words(change: object, words: str) -> None:
    assert callable(change)
    with pytest.raises(InputError, match=words):
        change(rollout("1", "2"))


def test_no_more_versions_are_held_than_may_be() -> None:
    found = rollout("1")
    for number in range(2, MOST_HELD + 1):
        found = found.holding(source(str(number)))
    with pytest.raises(InputError, match=r"holds 8 versions, the most that it may; retire one first: there is '1'"):
        found.holding(source("9"))
