"""The verbs for sharded bundles, and a front without PyTorch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from shard_servers import served, shards_of

from flyweight.bundle.shards.verify_sharded import verify_sharded
from flyweight.bundle.write import write_bundle
from flyweight.cli.main import main

FRONT = """
import sys
import flyweight as fw
ranker = fw.load({path!r}, shards={addresses!r})
print(ranker.score({{"user_id": 7}}, {{"item_id": [3, 5], "price": [0.5, 1.0]}}).tolist())
assert not {{"torch", "scipy", "onnx_ir"}} & set(sys.modules), "a front needs neither"
"""


def run(*words: str) -> int:
    before, sys.argv = sys.argv, ["flyweight", *words]
    try:
        main()
    except SystemExit as error:
        return int(error.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verbs")
    path = write_bundle(folder / "r.fly", tiny_models.contents(folder / "e"))
    assert run("shard", str(path), "--out", str(folder / "s.fly"), "--shards", "2", "--over", "1") == 0
    return folder / "s.fly"


def test_inspect_says_how_a_bundle_was_split(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", str(split), "--json", "-") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["shards"]["count"], facts["shards"]["by"]) == (2, "rows")
    assert facts["shards"]["tables"]["users"] == {"rows": tiny_models.USERS, "row": [4], "dtype": "float32"}
    assert run("inspect", str(split)) == 0
    assert "Split by rows over 2 shards" in capsys.readouterr().out


def test_verify_scores_the_stored_requests_over_the_servers(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(*shards_of(split, 2)) as addresses:
        assert run("verify", str(split), "--shard", addresses[0], "--shard", addresses[1]) == 0
    said = capsys.readouterr().out
    assert "shard-1" in said
    assert "2 stored requests over 2 shards" in said


def test_verify_without_servers_says_what_it_lacks(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", str(split)) == 1
    assert "give the addresses of its 2 servers" in capsys.readouterr().out


def test_verify_finds_a_shard_of_another_bundle(split: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "o.fly", tiny_models.contents(tmp_path / "e", name="other"))
    assert run("shard", str(other), "--out", str(tmp_path / "os.fly"), "--shards", "2", "--over", "1") == 0
    (tmp_path / "os.fly" / "shard-0").rename(tmp_path / "away")
    (split / "shard-0").rename(tmp_path / "os.fly" / "shard-0")
    try:
        found = verify_sharded(tmp_path / "os.fly")
    finally:
        (tmp_path / "os.fly" / "shard-0").rename(split / "shard-0")
    assert [check.ok for check in found.checks if check.name.startswith("shard-")] == [False, True]


def test_front_needs_no_torch(split: Path) -> None:
    with served(*shards_of(split, 2)) as addresses:
        code = FRONT.format(path=str(split), addresses=addresses)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("shard", "nowhere.fly", "--out", "s.fly", "--shards", "2"), "nowhere.fly"),
        (("serve-shard", "nowhere"), "A shard is a folder with shard.json; nowhere is none"),
    ],
)
def test_wrong_words_end_with_2_and_a_line(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
