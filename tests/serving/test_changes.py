"""A change reaches every process or none, whichever step one of them fails in."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from running_service import request, scores_of
from version_bundles import version_bundle

from flyweight.errors import EngineError, FlyweightError
from flyweight.serving.administration import OwnAdministration
from flyweight.serving.answering import Desk
from flyweight.serving.beginning import begin_rollouts
from flyweight.serving.changes import Changes
from flyweight.serving.following import Follower
from flyweight.serving.identity import hash_of_file
from flyweight.serving.refusal import Refusal
from flyweight.serving.repository import Repository
from flyweight.serving.rollout import Rollout, begun_with
from flyweight.serving.served import Opened, open_bundle
from flyweight.serving.settings import Settings, Source
from flyweight.serving.state_folder import FILE, StateFolder
from flyweight.serving.tensors import Tensors
from flyweight.serving.wire import Gone

FACTORS = {"1": 1.0, "2": -0.5, "3": 2.0}
ARRAYS = request(40)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("versions")
    return {version: version_bundle(folder / f"v{version}", factor) for version, factor in FACTORS.items()}


class Spoilt:
    """A process that raises in one step, once."""

    def __init__(self, follower: Follower) -> None:
        self.follower, self.verb, self.error = follower, "", FlyweightError()

    async def ask(self, verb: str, **values: Any) -> Any:
        if verb == self.verb:
            self.verb = ""
            raise self.error
        return await self.follower.ask(verb, **values)


class Fleet:
    """Three processes in one, that serve version 1, and what changes them."""

    def __init__(self, source: Source, state: StateFolder | None = None) -> None:
        settings = Settings(sources=(source,), threads=1)
        self.repositories = [Repository(settings) for _ in range(3)]
        self.processes = [Spoilt(Follower(one)) for one in self.repositories]
        self.changes = Changes({"ranker": begun_with(source)}, lambda: self.processes, 1, state)

    async def begin(self) -> None:
        for process in self.processes:
            found = await process.follower.begin(self.changes.rollouts["ranker"], first=True)
            await self.changes.began("ranker", **found)

    async def answers(self) -> list[str]:
        """The version that each process answers with; its scores are checked."""
        versions = []
        for repository in self.repositories:
            told = await Desk(repository).answer("http", "ranker", None, Tensors(dict(ARRAYS)))
            np.testing.assert_allclose(told.scores, scores_of(ARRAYS) * FACTORS[told.version], rtol=1e-4, atol=1e-6)
            versions.append(told.version)
        return versions

    def end(self) -> None:
        for repository in self.repositories:
            for served in repository.models["ranker"].versions.values():
                served.opened.ranker.close()


def run(source: Path, story: Callable[[Fleet], Coroutine[Any, Any, None]], state: StateFolder | None = None) -> None:
    async def all_of_it() -> None:
        fleet = Fleet(Source("ranker", str(source)), state)
        await fleet.begin()
        await story(fleet)
        fleet.end()

    asyncio.run(all_of_it())


def test_versions_come_go_back_and_are_freed_in_all_processes(paths: dict[str, Path]) -> None:
    async def story(fleet: Fleet) -> None:
        changes = fleet.changes
        first = [one.models["ranker"].versions["1"] for one in fleet.repositories]
        await changes.load("ranker", str(paths["2"]))
        assert await fleet.answers() == ["2"] * 3
        await changes.go_back("ranker")
        assert await fleet.answers() == ["1"] * 3
        assert all(list(one.models["ranker"].versions) == ["1"] for one in fleet.repositories)
        with pytest.raises(FlyweightError, match="no version from before to go back to"):
            await changes.go_back("ranker")
        await changes.load("ranker", str(paths["2"]), version="2")
        await changes.load("ranker", str(paths["3"]))
        assert await fleet.answers() == ["3"] * 3
        assert all(list(one.models["ranker"].versions) == ["2", "3"] for one in fleet.repositories)
        for served in first:  # retired, so that its engine is closed
            with pytest.raises(EngineError, match="is closed"):
                served.opened.ranker.score({"user_id": 1}, {"item_id": [1], "price": [1.0]})

    run(paths["1"], story)


def test_a_bundle_that_is_held_is_not_loaded_twice_and_a_version_never_changes(paths: dict[str, Path]) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.changes.load("ranker", str(paths["2"]), activate=False)
        assert await fleet.answers() == ["1"] * 3
        await fleet.changes.load("ranker", str(paths["2"]))
        assert await fleet.answers() == ["2"] * 3
        assert list(fleet.changes.rollouts["ranker"].versions) == ["1", "2"]
        with pytest.raises(Refusal, match=r"is held already, as version '2'; activate that\. Nothing was changed"):
            await fleet.changes.load("ranker", str(paths["2"]), version="new")
        with pytest.raises(Refusal, match="Version '2' is another bundle; a version never changes"):
            await fleet.changes.load("ranker", str(paths["3"]), version="2")
        await fleet.changes.unload("ranker")
        assert (await fleet.changes.load("ranker"))["answering"] == "2"  # the bundle loaded last, by its old name

    run(paths["1"], story)


def test_a_link_that_is_moved_is_a_new_version_and_the_old_one_stays_what_it_was(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    link, moved = tmp_path / "current", tmp_path / "moved"
    link.symlink_to(paths["1"])

    async def story(fleet: Fleet) -> None:
        moved.symlink_to(paths["2"])
        moved.replace(link)
        await fleet.changes.load("ranker")
        assert await fleet.answers() == ["2"] * 3
        rollout = fleet.changes.rollouts["ranker"]
        assert [one.path for one in rollout.held] == [str(paths[version]) for version in ("1", "2")]
        fresh = Follower(Repository(fleet.repositories[0].settings))
        assert (await fresh.begin(rollout, first=False))["failed"] == {}  # a worker that replaces another
        for served in fresh.repository.models["ranker"].versions.values():
            served.opened.ranker.close()
        kept = {"ranker": fleet.changes.rollouts["ranker"].going_back()}
        assert begin_rollouts([Source("ranker", str(link))], kept) == kept  # a restart undoes no going back

    run(link, story)


def test_a_vocabulary_that_is_replaced_makes_a_new_version_and_changes_no_old_one(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "raw.json"
    file.write_text('{"item_id": {"a": 1}}')

    async def story() -> None:
        settings = Settings((Source("ranker", str(paths["1"])),), threads=1, vocabulary=str(file))
        first, later = Follower(Repository(settings)), Follower(Repository(settings))
        changes = Changes({"ranker": begun_with(settings.sources[0])}, lambda: [first], 1)
        await changes.began("ranker", **await first.begin(changes.rollouts["ranker"], first=True))
        kept, before = dict(changes.rollouts), hash_of_file(file) or ""
        assert begin_rollouts(settings.sources, kept, before) == kept
        file.write_text('{"item_id": {"a": 2}}')
        with pytest.raises(FlyweightError, match=r"the vocabulary's file has the hash \w+, and had \w+\. Load it"):
            await later.begin(changes.rollouts["ranker"], first=False)
        assert (await changes.load("ranker"))["answering"] == "2"
        told = [first.repository.answerer("ranker", version, {}).opened for version in ("1", "2")]
        assert [one.takes.vocabularies.ids["item_id"]["a"] for one in told] == [1, 2]
        for one in told:
            one.ranker.close()
        seen = [begin_rollouts(settings.sources, kept, hash_of_file(path) or "") for path in (file, tmp_path / "none")]
        assert [one["ranker"].answering for one in seen] == ["2", "2"]

    asyncio.run(story())


def test_a_process_of_its_own_changes_as_many_do(paths: dict[str, Path]) -> None:
    async def story(fleet: Fleet) -> None:
        alone = OwnAdministration(fleet.repositories[0])
        await alone.change("load", "ranker", {"path": str(paths["2"])})
        assert await fleet.answers() == ["2", "1", "1"]
        await alone.load("ranker", {})  # the bundle is held: nothing new comes of it
        await alone.change("load", "other", {"path": str(paths["3"])})
        assert fleet.repositories[0].models["other"].answering == "1"
        await alone.unload("other")
        assert await fleet.answers() == ["2", "1", "1"]
        assert fleet.repositories[0].ready

    run(paths["1"], story)


@pytest.mark.parametrize("verb", ["prepare", "apply"])
@pytest.mark.parametrize("which", [0, 2])
def test_one_process_that_fails_changes_none(paths: dict[str, Path], verb: str, which: int, tmp_path: Path) -> None:
    state = StateFolder(tmp_path)

    async def story(fleet: Fleet) -> None:
        kept = (tmp_path / FILE).read_bytes()
        fleet.processes[which].verb, fleet.processes[which].error = verb, EngineError("no memory left.")
        with pytest.raises(Refusal, match=r"^no memory left\. Nothing was changed: version '1' goes on answering\.$"):
            await fleet.changes.load("ranker", str(paths["2"]))
        assert await fleet.answers() == ["1"] * 3
        assert all(list(one.models["ranker"].versions) == ["1"] for one in fleet.repositories)
        assert not any(one._prepared for one in fleet.repositories)
        assert (tmp_path / FILE).read_bytes() == kept
        await fleet.changes.load("ranker", str(paths["2"]))
        assert await fleet.answers() == ["2"] * 3

    run(paths["1"], story, state)
    state.close()


def test_a_process_that_ends_while_a_bundle_opens_changes_none_and_after_that_all(paths: dict[str, Path]) -> None:
    async def story(fleet: Fleet) -> None:
        spoilt = fleet.processes[1]
        spoilt.verb, spoilt.error = "prepare", Gone("gone", "draining")
        with pytest.raises(Refusal, match=r"A worker ended while it opened .*v2\. Nothing was changed: version '1'"):
            await fleet.changes.load("ranker", str(paths["2"]))
        assert await fleet.answers() == ["1"] * 3
        spoilt.verb, spoilt.error = "apply", Gone("gone", "draining")
        await fleet.changes.load("ranker", str(paths["2"]))
        assert fleet.changes.rollouts["ranker"].answering == "2"  # what one that begins again is told
        fleet.processes = []
        with pytest.raises(Refusal, match="No worker takes requests at this moment; try again"):
            await fleet.changes.load("ranker", str(paths["3"]))

    run(paths["1"], story)


def test_a_state_that_cannot_be_kept_changes_nothing(paths: dict[str, Path], tmp_path: Path) -> None:
    state = StateFolder(tmp_path)

    async def story(fleet: Fleet) -> None:
        (tmp_path / f".{FILE}.part").symlink_to("/dev/full")
        with pytest.raises(Refusal, match=r"No space left on device\. Nothing was changed: version '1' goes on"):
            await fleet.changes.load("ranker", str(paths["2"]))
        assert await fleet.answers() == ["1"] * 3
        await fleet.changes.load("ranker", str(paths["2"]))  # the link was removed with what was left
        assert state.read()["ranker"] == fleet.changes.rollouts["ranker"]

    run(paths["1"], story, state)
    state.close()


def test_a_process_that_begins_without_one_version_takes_it_from_all(paths: dict[str, Path]) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.changes.load("ranker", str(paths["2"]), activate=False)
        await fleet.changes.set_canary("ranker", {"version": "2", "percent": 100})
        assert await fleet.answers() == ["2"] * 3
        rollout = fleet.changes.rollouts["ranker"]
        await fleet.changes.began("ranker", {}, {"2": "its file is gone"})
        assert await fleet.answers() == ["1"] * 3
        fresh = Follower(Repository(fleet.repositories[0].settings))
        lost = Source("ranker", "/nowhere", "2")
        found = await fresh.begin(
            begun_with(rollout.held[0]).holding(lost).activating("2", 1), first=True
        )  # none serves yet, so the version before does
        assert (list(found["failed"]), fresh.repository.models["ranker"].answering) == (["2"], "1")
        with pytest.raises(FlyweightError, match="nowhere"):
            await fresh.begin(begun_with(rollout.held[0]).holding(lost).activating("2", 1), first=False)
        fresh.repository.models["ranker"].versions["1"].opened.ranker.close()

    run(paths["1"], story)


def test_what_was_opened_before_a_start_is_opened_once_and_what_changed_meanwhile_too(
    paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(source: Source, settings: Settings) -> Opened:
        opened.append(Path(source.path).name)
        return open_bundle(source, settings)

    async def story(fleet: Fleet) -> None:
        await fleet.changes.load("ranker", str(paths["2"]), activate=False)
        fresh = Follower(Repository(fleet.repositories[0].settings))
        monkeypatch.setattr("flyweight.serving.repository.open_bundle", counted)
        await fresh.open(fleet.changes.rollouts["ranker"].holding(Source("ranker", "/nowhere", "9")))
        assert opened == ["v1", "v2", "nowhere"]
        await fleet.changes.retire("ranker", "2")
        await fleet.changes.load("ranker", str(paths["3"]))
        opened.clear()
        found = await fresh.begin(fleet.changes.rollouts["ranker"], first=False)
        assert (opened, found["failed"]) == (["v3"], {})
        assert list(fresh.repository.models["ranker"].versions) == ["1", "3"]
        assert not fresh.repository._prepared  # version 2 was freed
        for served in fresh.repository.models["ranker"].versions.values():
            served.opened.ranker.close()

    run(paths["1"], story)


def test_a_model_added_later_whose_bundle_is_lost_is_left_unloaded(paths: dict[str, Path]) -> None:
    async def story() -> None:
        fresh = Follower(Repository(Settings(sources=(Source("ranker", str(paths["1"])),), threads=1)))
        added = Rollout("added", Source("added", "/nowhere")).holding(Source("added", "/nowhere", "4"))
        with pytest.raises(FlyweightError, match="nowhere"):
            await fresh.begin(added, first=False)  # others serve it
        found = await fresh.begin(added, first=True)
        assert list(found["failed"]) == ["4"]
        assert added.without(found["failed"]).newest == 4
        with pytest.raises(Refusal, match="'added' is not ready: unloaded"):
            fresh.repository.answerer("added", None, {})

    asyncio.run(story())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role": "candidate"}, r"takes as input 'user_id' ids of shape \[\] for each candidate; the version that"),
        ({"rows": None}, "takes as input 'user_id' whole numbers of shape"),
    ],
)
def test_a_bundle_of_other_inputs_is_refused(
    paths: dict[str, Path], tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    inputs = {**tiny_models.INPUTS, "user_id": tiny_models.INPUTS["user_id"].model_copy(update=change)}

    async def story(fleet: Fleet) -> None:
        odd = version_bundle(tmp_path / "odd", 1.0, hoisted=False, inputs=inputs)
        with pytest.raises(FlyweightError, match=words):
            await fleet.changes.load("ranker", str(odd))
        assert await fleet.answers() == ["1"] * 3

    run(paths["1"], story)


def test_a_load_that_fails_leaves_an_unloaded_model_unloaded_and_the_service_ready(paths: dict[str, Path]) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.changes.unload("ranker")
        assert all(one.ready for one in fleet.repositories)
        with pytest.raises(FlyweightError, match=r"nowhere: no such folder.*the model stays unloaded"):
            await fleet.changes.load("ranker", "/nowhere")
        assert all(one.ready for one in fleet.repositories)
        assert "nowhere: no such folder" in fleet.repositories[0].index()[0]["reason"]

    run(paths["1"], story)


def test_a_service_ends_in_the_middle_of_a_change(paths: dict[str, Path]) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.changes.load("ranker", str(paths["2"]))
        repository = fleet.repositories[0]
        asked = asyncio.create_task(Desk(repository).answer("http", "ranker", "1", Tensors(dict(ARRAYS))))
        drains = asyncio.create_task(repository.drain())
        await asyncio.sleep(0)  # the request waits, and the end for it
        repository.apply(fleet.changes.rollouts["ranker"].unloaded())
        await repository.settle("ranker")
        await drains
        assert (await asked).version == "1"

    run(paths["1"], story)


def test_a_canarys_field_must_be_a_requests_input(paths: dict[str, Path]) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.changes.load("ranker", str(paths["2"]), activate=False)
        with pytest.raises(Refusal, match=r"field 'item_id' is no input of a request .* it takes 'user_id'\. Nothing"):
            await fleet.changes.set_canary("ranker", {"version": "2", "percent": 50, "field": "item_id"})
        assert fleet.changes.rollouts["ranker"].canary is None

    run(paths["1"], story)


def test_the_shadow_is_compared_and_breaks_no_answer(paths: dict[str, Path]) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.changes.load("ranker", str(paths["2"]), activate=False)
        await fleet.changes.set_shadow("ranker", {"version": "2", "top": 5})
        shadowings = [one.models["ranker"].shadowing for one in fleet.repositories]
        for _ in range(3):
            assert await fleet.answers() == ["1"] * 3
            for shadowing in shadowings:
                assert shadowing is not None
                await shadowing.settle()
        found = await fleet.changes.drift("ranker")
        apart = scores_of(ARRAYS) * (FACTORS["2"] - 1)  # scores of version 1 and minus half of them: the reverse order
        assert (found["compared"], found["shed"], found["failed"]) == (9, 0, 0)
        assert found["mean_difference"] == pytest.approx(apart.mean(), rel=1e-4)
        assert found["mean_abs_difference"]["mean"] == pytest.approx(np.abs(apart).mean(), rel=1e-4)
        assert found["max_abs_difference"]["max"] == pytest.approx(np.abs(apart).max(), rel=1e-4)
        assert found["kendall_tau"]["max"] == pytest.approx(-1, abs=0.02)
        assert found["top_overlap"]["max"] == 0
        for shadowing in shadowings:
            assert shadowing is not None
            shadowing._served.opened.ranker.close()
        assert await fleet.answers() == ["1"] * 3
        for shadowing in shadowings:
            assert shadowing is not None
            await shadowing.settle()
        found = await fleet.changes.drift("ranker")
        assert found["failed"] == 3
        assert "is closed" in found["last_failure"]
        await fleet.changes.set_shadow("ranker", None)
        with pytest.raises(Refusal, match="has no shadow; set one first"):
            await fleet.changes.drift("ranker")

    run(paths["1"], story)


def test_what_a_shadow_showed_beside_one_version_is_not_added_to_what_it_shows_beside_another(
    paths: dict[str, Path],
) -> None:
    async def story(fleet: Fleet) -> None:
        for version in ("2", "3"):
            await fleet.changes.load("ranker", str(paths[version]), activate=False)
        await fleet.changes.set_shadow("ranker", {"version": "3"})
        for version in ("1", "2"):
            await fleet.changes.activate("ranker", version)
            assert await fleet.answers() == [version] * 3
            for repository in fleet.repositories:
                shadowing = repository.models["ranker"].shadowing
                assert shadowing is not None
                await shadowing.settle()
            found = await fleet.changes.drift("ranker")
            apart = scores_of(ARRAYS) * (FACTORS["3"] - FACTORS[version])
            assert found["compared"] == 3
            assert found["mean_difference"] == pytest.approx(apart.mean(), rel=1e-4)
        await fleet.changes.set_canary("ranker", {"version": "1", "percent": 0})
        assert (await fleet.changes.drift("ranker"))["compared"] == 3  # who answers is the same

    run(paths["1"], story)


def test_only_versions_that_may_answer_are_asked_whether_they_have_room(paths: dict[str, Path]) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.changes.load("ranker", str(paths["2"]))
        desk = Desk(fleet.repositories[0])
        assert desk.early_refusal("ranker") is None
        asked = [asyncio.create_task(desk.answer("http", "ranker", None, Tensors(dict(ARRAYS)))) for _ in range(1024)]
        await asyncio.sleep(0)
        refusal = desk.early_refusal("ranker")
        assert refusal is not None
        assert "1,024 requests wait already" in str(refusal)  # of the version that answers; the one before is idle
        assert desk.early_refusal("ranker", "1") is None
        assert desk.early_refusal("ranker", "2") is not None
        await fleet.changes.set_canary("ranker", {"version": "1", "percent": 1})
        await asyncio.gather(*asked)
        assert desk.early_refusal("ranker") is None

    run(paths["1"], story)


def test_the_shadow_sheds_first(paths: dict[str, Path]) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.changes.load("ranker", str(paths["2"]), activate=False)
        await fleet.changes.set_shadow("ranker", {"version": "2"})
        repository = fleet.repositories[0]
        desk = Desk(repository)
        asked = [desk.answer("http", "ranker", None, Tensors(dict(ARRAYS))) for _ in range(100)]
        for told in await asyncio.gather(*asked):
            assert told.version == "1"
        shadowing = repository.models["ranker"].shadowing
        assert shadowing is not None
        await shadowing.settle()
        assert shadowing.drift.compared + shadowing.drift.shed == 100
        assert shadowing.drift.shed > 50

    run(paths["1"], story)
