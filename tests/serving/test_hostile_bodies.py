"""Bodies changed on purpose: each is refused with a reason, or scored as what it says, and the service goes on."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tiny_models
from hostile_bodies import Sender, Sent, decoded, hostile
from running_service import body_of, request, scores_of, started

from flyweight.task.field import REQUEST_INDEX

COUNT = 2_000


def due(arrays: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """What plain NumPy scores a request with, also one that is several."""
    rows = len(arrays["item_id"])
    user = arrays["user_id"].astype(np.int64)
    index = arrays.get(REQUEST_INDEX, np.arange(rows) if len(user) == rows else np.zeros(rows, np.int64))
    price = arrays["price"].astype(np.float32)
    return np.asarray(tiny_models.expected(user[index.astype(np.int64)], arrays["item_id"].astype(np.int64), price))


def check(sent: Sent, answers: list[tuple[int, bytes]]) -> int:
    """Check what came back, and return the first status."""
    assert answers, (sent.how, sent.headers, sent.body[:200])
    for status, body in answers:
        assert status == 200 or 400 <= status < 500, (status, body, sent)
        if status != 200:
            assert len(orjson.loads(body)["error"]) > 10, (body, sent)
    status, body = answers[0]
    if status == 200 and not sent.lies:
        seen = np.array(orjson.loads(body)["outputs"][0]["data"], dtype=float)
        np.testing.assert_allclose(seen, due(decoded(sent)), rtol=1e-3, atol=1e-5)
    return status


@pytest.mark.parametrize(("engine", "count"), [("onnxruntime", COUNT), ("openvino", COUNT // 4)])
def test_hostile_bodies_are_refused_with_a_reason_or_scored_as_what_they_say(
    hoisted: Path, engine: str, count: int
) -> None:
    pytest.importorskip(engine)
    with started(hoisted, "--read-timeout", "0.2", "--engine", engine) as service:
        before = service.workers()
        sender, seen = Sender(service.http), Counter[int]()
        for sent in hostile(request(6), seed=11, count=count):
            seen[check(sent, sender.ask(sent))] += 1
        sender.close()
        assert service.workers() == before
        assert seen[400] > count / 2
        assert seen[200] > count / 50
        status, answer = service.post("/v2/models/ranker/infer", body_of(request(6)))
        assert status == 200
        np.testing.assert_allclose(answer["outputs"][0]["data"], scores_of(request(6)), rtol=1e-4, atol=1e-6)
        assert "Traceback" not in "".join(service.lines)
