"""Servers of shards that are killed, hang, come back, or are not the ones that are due."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from shard_servers import ServerProcess, served, shards_of

import flyweight as fw
from flyweight.bundle.shards.shard import shard
from flyweight.bundle.write import write_bundle
from flyweight.errors import InputError, ShardError

ITEMS = np.arange(0, tiny_models.ITEMS, 7)
PRICES = np.linspace(0, 1, len(ITEMS), dtype=np.float32)
REQUEST, CANDIDATES = {"user_id": 7}, {"item_id": ITEMS, "price": PRICES}
DUE = tiny_models.expected(np.full(len(ITEMS), 7), ITEMS, PRICES)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of all tables of the tiny ranker."""
    folder = tmp_path_factory.mktemp("split")
    path = write_bundle(folder / "r.fly", tiny_models.contents(folder / "e"))
    return shard(path, folder / "s.fly", shards=2, over=1).path


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def with_stand_ins(lost: int) -> np.ndarray:
    """The scores with a shard of two away: its users' rows the mean row, its codes the codeword nearest to the mean."""
    w = tiny_models.weights()
    codes, users = w["codes"].copy(), w["users"].copy()
    mean = w["codebook"][codes].astype(np.float64).mean(0)
    distance = {code: float(np.square(w["codebook"][code] - mean).sum()) for code in codes.tolist()}
    codes[lost::2] = min(distance, key=lambda code: distance[code])
    users[lost::2] = w["users"].astype(np.float64).mean(0).astype(np.float32)
    x = np.concatenate([users[np.full(len(ITEMS), 7)], w["codebook"][codes[ITEMS]], PRICES[:, None]], axis=1)
    return (np.maximum(x @ w["w1"] + w["b1"], 0) @ w["w2"])[:, 0]


def test_killed_server_is_an_error_then_stood_in_for_then_used_again(split: Path) -> None:
    one, other = (ServerProcess(folder) for folder in shards_of(split, 2))
    addresses = [one.address, other.address]
    try:
        with (
            fw.load(split, shards=addresses, timeout=2.0) as strict,
            fw.load(split, shards=addresses, missing="degrade") as lenient,
        ):
            exact = strict.score(REQUEST, CANDIDATES)
            np.testing.assert_allclose(exact, DUE, rtol=1e-5, atol=1e-6)
            other.kill()
            began = time.monotonic()
            words = rf"Shard 1 of 2 at {other.address}: .*serve-shard shard-1 --port {other.port}.*missing='degrade'"
            with pytest.raises(ShardError, match=words):
                strict.score(REQUEST, CANDIDATES)
            assert time.monotonic() - began < 2.0
            np.testing.assert_allclose(lenient.score(REQUEST, CANDIDATES), with_stand_ins(1), rtol=1e-5, atol=1e-6)
            odd = int((ITEMS % 2 == 1).sum())
            assert lenient.last_degraded == sum(lenient.degraded.values())
            assert lenient.degraded == {"users": len(ITEMS), "codes": odd}
            assert set(lenient.away) == {1}
            wait_until(lambda: "tried" in strict.away.get(1, ""))
            with pytest.raises(ShardError, match=r"away for \d+\.\d s, tried \d+ times since"):
                strict.score(REQUEST, CANDIDATES)
            other = ServerProcess(split / "shard-1", other.port)
            wait_until(lambda: not strict.away and not lenient.away)
            assert np.array_equal(strict.score(REQUEST, CANDIDATES), exact)
            assert np.array_equal(lenient.score(REQUEST, CANDIDATES), exact)
            assert lenient.last_degraded == 0
    finally:
        one.kill()
        other.kill()


def test_server_that_was_restarted_between_calls_costs_no_error(split: Path) -> None:
    one, other = (ServerProcess(folder) for folder in shards_of(split, 2))
    try:
        with fw.load(split, shards=[one.address, other.address]) as ranker:
            ranker.score(REQUEST, CANDIDATES)
            one.kill()
            one = ServerProcess(split / "shard-0", one.port)
            np.testing.assert_allclose(ranker.score(REQUEST, CANDIDATES), DUE, rtol=1e-5, atol=1e-6)
    finally:
        one.kill()
        other.kill()


def test_server_that_hangs_is_given_up_after_the_timeout(split: Path) -> None:
    one, other = (ServerProcess(folder) for folder in shards_of(split, 2))
    try:
        with fw.load(split, shards=[one.address, other.address], timeout=0.3) as ranker:
            ranker.score(REQUEST, CANDIDATES)
            os.kill(one.process.pid, signal.SIGSTOP)
            os.waitpid(one.process.pid, os.WUNTRACED)  # the signal is not there yet when kill returns
            began = time.monotonic()
            with pytest.raises(ShardError, match=r"Shard 0 of 2 at .*no answer within 0\.3 s \(timeout=0\.3\)"):
                ranker.score(REQUEST, CANDIDATES)
            assert 0.3 <= time.monotonic() - began < 1.5
            os.kill(one.process.pid, signal.SIGCONT)
            wait_until(lambda: not ranker.away)
            np.testing.assert_allclose(ranker.score(REQUEST, CANDIDATES), DUE, rtol=1e-5, atol=1e-6)
    finally:
        one.kill()
        other.kill()


def test_shard_that_is_away_while_loading_is_refused_or_told(split: Path) -> None:
    with served(split / "shard-0") as (address,), socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nothing answers there
        gone = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ShardError, match=r"Shard 1 of 2 at .*nothing listens there"):
            fw.load(split, shards=[address, gone])
        with (
            pytest.warns(UserWarning, match="Shard 1 of 2 at .*stood in for until it answers"),
            fw.load(split, shards=[address, gone], missing="degrade") as ranker,
        ):
            np.testing.assert_allclose(ranker.score(REQUEST, CANDIDATES), with_stand_ins(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("missing", ["refuse", "degrade"])
def test_swapped_shards_are_refused(split: Path, missing: str) -> None:
    with served(*shards_of(split, 2)) as addresses:
        words = "serves shard 1 of 2, and shard 0 is due there; give the addresses in the shards' order"
        with pytest.raises(ShardError, match=words):
            fw.load(split, shards=addresses[::-1], missing=missing)  # type: ignore[arg-type]


def test_shard_of_another_bundle_is_refused_with_both_hashes(split: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "o.fly", tiny_models.contents(tmp_path / "e", name="other"))
    foreign = shard(other, tmp_path / "os.fly", shards=2, over=1).path
    with served(split / "shard-0", foreign / "shard-1") as addresses:
        words = r"another bundle or version: its plan hashes to [0-9a-f]{16}\.\.\., [0-9a-f]{16}\.\.\. is due"
        with pytest.raises(ShardError, match=words):
            fw.load(split, shards=addresses)


def answering(*answers: bytes) -> tuple[str, threading.Thread]:
    """A server that says what it is told to, whatever is asked, and then ends."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        with listener:
            link, _ = listener.accept()
        with link:
            for answer in answers:
                link.recv(1 << 16)
                link.sendall(answer)
            link.settimeout(5.0)
            with suppress(OSError):
                while link.recv(1 << 16):
                    pass

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    return f"127.0.0.1:{listener.getsockname()[1]}", thread


def test_server_that_is_none_of_ours_is_refused_by_what_it_says(split: Path) -> None:
    address, thread = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with served(split / "shard-0") as (first,), pytest.raises(ShardError, match=r"no message of a shard.*HTTP"):
        fw.load(split, shards=[first, address])
    thread.join(5.0)


def test_answer_of_another_length_than_is_due_is_refused_unread(split: Path) -> None:
    from flyweight.bundle.shards.messages import HEADER, MAGIC, VERSION, WELCOME, Kind
    from flyweight.bundle.shards.read import read_front

    front = read_front(split)
    hello = WELCOME.pack(bytes.fromhex(front.hash), 1, 2, bytes.fromhex(front.plan.files[1].sha256))
    welcome = HEADER.pack(MAGIC, VERSION, Kind.WELCOME, 0, 0, len(hello)) + hello
    lie = HEADER.pack(MAGIC, VERSION, Kind.ROWS, 1, 0, 2**50)
    address, thread = answering(welcome, lie)
    with (
        served(split / "shard-0") as (first,),
        fw.load(split, shards=[first, address]) as ranker,
        pytest.raises(ShardError, match=r"a message of 1,125,899,906,842,624 bytes was announced"),
    ):
        ranker.score(REQUEST, CANDIDATES)
    thread.join(5.0)


@pytest.mark.parametrize(
    ("shards", "words"),
    [
        (None, "has 2 shards: give their addresses in order"),
        (["127.0.0.1:1"], r"has 2 shards: .* seen 1: \['127.0.0.1:1'\]"),
        (["127.0.0.1:1", "127.0.0.1:1"], "The address 127.0.0.1:1 stands for two shards"),
        (["127.0.0.1", "127.0.0.1:2"], "address is 'host:port'.* seen '127.0.0.1'"),
        (["127.0.0.1:1", "127.0.0.1:70000"], "seen '127.0.0.1:70000'"),
    ],
)
def test_wrong_addresses_are_refused_in_words(split: Path, shards: list[str] | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fw.load(split, shards=shards)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"missing": "guess"}, "'refuse' or 'degrade'; seen 'guess'"), ({"timeout": 0.0}, "above 0; seen 0.0")],
)
def test_wrong_settings_are_refused_in_words(split: Path, given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        fw.load(split, shards=["127.0.0.1:1", "127.0.0.1:2"], **given)  # type: ignore[arg-type]
