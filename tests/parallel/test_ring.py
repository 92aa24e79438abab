"""Memory between two processes: what is put is what is taken, in order; who waits in vain is told; nothing stays."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from staged_tasks import counts, sends_to_a_dead_one, waits_for_a_dead_one

import flyweight as fw
from flyweight.parallel.launch import run_ranks
from flyweight.parallel.link import measure_link
from flyweight.parallel.ring import Ring


def test_micro_batches_arrive_whole_and_in_order() -> None:
    found, sent = run_ranks(partial(counts, rings=(Ring(),)), 2)["found"]
    torch.testing.assert_close(found, sent, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (waits_for_a_dead_one, "Rank 0 of 2 ended by signal SIGKILL"),
        (sends_to_a_dead_one, "Rank 1 of 2 failed.*Traceback.*the second stage is broken"),
    ],
)
def test_who_waits_for_a_dead_stage_is_ended_within_ten_seconds(
    work: Callable[..., None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = tmp_path / "folders"
    folders.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folders))
    with pytest.raises(fw.EngineError, match=f"(?s){said}"):
        run_ranks(partial(work, rings=(Ring(),), died=tmp_path / "died"), 2)
    assert time.monotonic() - float((tmp_path / "died").read_text()) < 10
    assert not list(folders.iterdir())
    assert not torch.multiprocessing.active_children()


def test_who_waits_for_a_silent_stage_says_so() -> None:
    with pytest.raises(TimeoutError, match=r"The stage before has sent nothing for 0\.1 s"):
        Ring(patience=0.1).take(1)
    with pytest.raises(TimeoutError, match=r"The next stage has taken nothing for 0\.1 s"):
        Ring(patience=0.1).put([torch.zeros(1)])


def test_no_shared_memory_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: torch.UntypedStorage) -> None:
        raise RuntimeError("No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "share_memory_", full)
    with pytest.raises(fw.InputError, match=r"8 MB of shared memory .*No space left.*more micro-batches.*--shm-size"):
        Ring().put([torch.zeros(1_000_000)])


def test_a_link_is_measured_with_what_of_it_the_sender_does() -> None:
    link = measure_link()
    assert 1e8 < link.bytes_a_second < 1e12
    assert 0 < link.latency < 0.1
    assert link.sender == 1.0
    assert link.receiver >= 0
