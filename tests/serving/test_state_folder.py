"""What is served, kept over a restart: written whole, read back equal, and left with a word where it is damaged."""

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from flyweight.errors import FlyweightError, InputError
from flyweight.serving.beginning import begin_rollouts, digest_of
from flyweight.serving.rollout import Canary, Rollout, Shadow, begun_with
from flyweight.serving.settings import Source
from flyweight.serving.state_folder import FILE, StateFolder, _checksum, rollouts_of


def bundle(path: Path, content: str = "{}") -> Path:
    """A folder with a manifest, which is all that is looked at before a bundle is opened."""
    path.mkdir(exist_ok=True)
    (path / "manifest.json").write_text(content)
    return path


def source(path: Path, version: str, model: str = "ranker") -> Source:
    return Source(model, str(path), version, digest_of(str(path)) or "")


@pytest.fixture
def kept(tmp_path: Path) -> Rollout:
    first, second = (source(bundle(tmp_path / name, name), name) for name in ("1", "2"))
    found = begun_with(first).holding(second).activating("2", 1)
    return replace(found, canary=Canary("1", 12.5, "user_id"))


def begun(kept: Rollout) -> Source:
    """The command line's bundle, before it was opened."""
    return Source("ranker", kept.held[0].path)


def test_what_is_kept_is_read_back(tmp_path: Path, kept: Rollout) -> None:
    folder = StateFolder(tmp_path / "deep" / "state")
    assert folder.read() == {}
    folder.write({"ranker": kept, "other": begun_with(Source("other", "/o"))})
    folder.write({"ranker": kept})
    folder.close()
    again = StateFolder(tmp_path / "deep" / "state")
    assert again.read() == {"ranker": kept}
    again.close()


@pytest.mark.parametrize("spoil", ["cut", "bit", "empty", "list", "deep", "newer", "folder"])
def test_a_damaged_state_is_said_and_nothing_is_taken_from_it(
    tmp_path: Path, kept: Rollout, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.write({"ranker": kept})
    file = tmp_path / "state" / FILE
    data = file.read_bytes()
    file.unlink()
    newer = data.replace(b'"format": 1', b'"format": 2')
    spoilt = {"cut": data[:-40], "bit": data.replace(b"12.5", b"62.5"), "empty": b"", "list": b"[]", "newer": newer}
    spoilt["deep"] = b"[" * 100_000
    if spoil == "folder":
        file.mkdir()
    else:
        file.write_bytes(spoilt[spoil])
    assert folder.read() == {}
    assert f"{file} is damaged" in caplog.text
    assert "the service begins with the bundles of its command line" in caplog.text
    assert (tmp_path / "state" / "rollouts.damaged").exists()
    folder.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"held": [{"model": "ranker", "path": 5}]}, "0.held.0.path: Input should be a valid string"),
        ({"newest": "many"}, "0.newest: Input should be a valid integer"),
        ({"before": ["7"]}, "holds no version '7', which answered before"),
        ({"mirror": {"version": "2"}}, "it holds what this version of Flyweight does not know"),
    ],
)
def test_a_state_made_by_hand_is_read_as_if_by_a_stranger(kept: Rollout, change: dict[str, Any], words: str) -> None:
    listed = [{**asdict(kept), **change}]
    made = {"format": 1, "sha256": _checksum(listed), "rollouts": listed}
    with pytest.raises(ValueError, match=words):
        rollouts_of(json.dumps(made).encode())


def test_a_full_disk_leaves_the_state_as_it_was(tmp_path: Path, kept: Rollout) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.write({"ranker": kept})
    (tmp_path / "state" / f".{FILE}.part").symlink_to("/dev/full")
    with pytest.raises(FlyweightError, match=r"The state cannot be kept in .*: No space left on device"):
        folder.write({})
    assert folder.read() == {"ranker": kept}
    folder.close()


def test_a_part_that_cannot_be_removed_is_an_error_in_words_too(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    (tmp_path / f".{FILE}.part").mkdir()  # a disk that became read-only refuses to open and to remove it as well
    with pytest.raises(FlyweightError, match=r"The state cannot be kept in .*: Is a directory"):
        folder.write({})
    folder.close()


def test_two_services_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    with pytest.raises(InputError, match="is used by another service"):
        StateFolder(tmp_path)
    folder.close()
    StateFolder(tmp_path).close()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--state .*file cannot be used: File exists"):
        StateFolder(tmp_path / "file")


def test_the_same_command_line_begins_where_the_service_ended(kept: Rollout) -> None:
    assert begin_rollouts([begun(kept)], {"ranker": kept}) == {"ranker": kept}


def test_another_bundle_on_the_command_line_is_meant(
    tmp_path: Path, kept: Rollout, caplog: pytest.LogCaptureFixture
) -> None:
    other = Source("ranker", str(bundle(tmp_path / "other")))
    found = begin_rollouts([other], {"ranker": kept})["ranker"]
    assert (found.answering, found.source.path, found.canary) == ("3", other.path, None)
    assert "names another bundle than before for model 'ranker': its bundle is served as version 3" in caplog.text
    bundle(Path(kept.held[0].path), "replaced in its place")
    found = begin_rollouts([begun(kept)], {"ranker": kept})["ranker"]
    assert (found.answering, found.source.path) == ("3", begun(kept).path)


def test_a_bundle_that_is_all_that_is_left_has_the_name_that_it_had(tmp_path: Path, kept: Rollout) -> None:
    """Replaced in its place, loaded as version 3, gone back from: the bundle of before is nowhere any more."""
    place = bundle(Path(kept.held[0].path), "replaced in its place")
    third = source(place, "3")
    assert third.digest != kept.held[0].digest
    back = replace(kept.without(["2"]).holding(third).activating("3", 1), canary=None).going_back()
    assert (back.answering, back.source) == ("1", third)
    found = begin_rollouts([begun(kept)], {"ranker": back})["ranker"]
    assert (found.answering, list(found.versions), found.newest) == ("3", ["3"], 3)


def test_a_version_whose_bundle_is_gone_is_left_and_the_one_before_answers(
    kept: Rollout, caplog: pytest.LogCaptureFixture
) -> None:
    bundle(Path(kept.held[1].path), "another one")
    found = begin_rollouts([begun(kept)], {"ranker": kept})["ranker"]
    assert (found.answering, list(found.versions), found.canary) == ("1", ["1"], None)
    assert "Version '2' of model 'ranker' is not served" in caplog.text


def test_added_models_stay_and_those_off_the_command_line_go(
    tmp_path: Path, kept: Rollout, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    added = source(bundle(tmp_path / "added"), "1", "added")
    state = {"ranker": kept, "added": Rollout("added", added).holding(added)}
    given = Source("third", str(bundle(tmp_path / "third")))
    assert set(begin_rollouts([given], state)) == {"third", "added"}
    assert "Model 'ranker' is not on the command line any more" in caplog.text
    bundle(tmp_path / "added", "another one")
    assert set(begin_rollouts([given], state)) == {"third"}
    assert "Model 'added' is not served: none of its bundles is as it was" in caplog.text


def test_an_unloaded_model_stays_unloaded(kept: Rollout) -> None:
    state = {"ranker": replace(kept, shadow=Shadow("1"), canary=None).unloaded()}
    assert begin_rollouts([begun(kept)], state) == state
