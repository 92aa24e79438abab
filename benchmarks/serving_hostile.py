"""A hundred thousand changed bodies, and schemathesis against the service's own OpenAPI document.

    python benchmarks/serving_limits.py hostile

The bodies are those of `tests/serving/hostile_bodies.py`: bits flipped, cut off, lengths that lie, deep and odd JSON,
NaN, other shapes and datatypes. An answer is either a refusal with a reason (4xx), or scores that are compared with
what the bundle gives in a process for the request as code of its own reads it.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import flyweight as fw
from flyweight.zoo.cache import cache_folder
from serving_requests import real_requests
from serving_running import running

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serving"))

from hostile_bodies import Sender, decoded, hostile

BUNDLE = cache_folder() / "auto" / "complete-journey-10" / "model.fly"
COUNT, ROWS, SEED = 100_000, 8, 3
EXAMPLES = 100
Json = dict[str, Any]


def mutated() -> Json:
    """Send changed bodies; count what came back and compare scores."""
    ((asked, offered),) = real_requests([ROWS])
    arrays = {**asked, **offered}
    with (
        fw.load(BUNDLE) as ranker,
        running(BUNDLE, "--workers", 1, "--read-timeout", 0.1, "--max-body", 2**20) as service,
    ):
        sender, workers, sizes = Sender(service.http), service.workers(), []
        statuses: Counter[str] = Counter()
        compared = wrong = without = 0
        examples: dict[str, str] = {}
        begin = time.monotonic()
        for number, sent in enumerate(hostile(arrays, SEED, COUNT)):
            answers = sender.ask(sent)
            without += not answers
            for status, body in answers:
                statuses[str(status)] += 1
                if status != 200:
                    words = json.loads(body)["error"]
                    assert len(words) > 10, (status, body)
                    examples.setdefault(f"{status} {sent.how}", words)
            if answers and answers[0][0] == 200 and not sent.lies:
                compared += 1
                wrong += not _right(ranker, set(asked), decoded(sent), json.loads(answers[0][1]))
            if number % (COUNT // 50) == COUNT // 50 - 1:
                sizes.append(service.pss())
        same = service.workers() == workers
        log = "".join(service.log)
    return {
        "count": COUNT,
        "seconds": time.monotonic() - begin,
        "statuses": dict(sorted(statuses.items())),
        "without_answer": without,
        "server_errors": sum(count for status, count in statuses.items() if status.startswith("5")),
        "compared": compared,
        "wrong": wrong,
        "crashes": int(not same) + log.count("Traceback"),
        "pss": sizes,
        "examples": examples,
    }


def _right(ranker: Any, of_user: set[str], arrays: Json, answer: Json) -> bool:
    index = arrays.pop("request_index", None)
    rows = max(len(arrays[name]) for name in arrays if name not in of_user)
    numbers = {name: array.astype(np.int64) for name, array in arrays.items()}
    asked = {name: array[:1] if index is None else array for name, array in numbers.items() if name in of_user}
    offered = {name: array for name, array in numbers.items() if name not in of_user}
    requests = len(next(iter(asked.values())))
    offsets = np.searchsorted(index, np.arange(requests + 1)) if index is not None else np.array([0, rows])
    due = ranker.score_many(asked, offered, offsets)
    seen = np.array(answer["outputs"][0]["data"], float)
    return bool(seen.shape == due.shape and np.abs(seen - due).max() < 1e-3)


def schemathesis() -> Json:
    """Let schemathesis make requests from the OpenAPI document."""
    command = shutil.which("schemathesis") or str(Path(sys.executable).parent / "schemathesis")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    with running(BUNDLE, "--workers", 2) as service:
        before = service.workers()
        asked = [command, "run", f"http://{service.http}/openapi.json", "--checks", checks, "--seed", "1"]
        asked += ["--max-examples", str(EXAMPLES), "--no-color", "--exclude-path-regex", "unload|load$"]
        told = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        same = service.workers() == before
    cases = re.findall(r"([\d,]+) (generated|passed|failed)", told.stdout)
    return {
        "command": " ".join(["schemathesis", *asked[1:2], "URL", *asked[3:]]),
        "exit": told.returncode,
        "summary": told.stdout.splitlines()[-25:],
        "cases": {word: int(count.replace(",", "")) for count, word in cases},
        "crashes": int(not same),
    }


def hostile_table(found: Json) -> str:
    bodies, made = found["mutated"], found["schemathesis"]
    refused = sum(count for status, count in bodies["statuses"].items() if status.startswith("4"))
    sizes = [size / 2**20 for size in bodies["pss"]]
    lines = [
        "| | sent | refused, 4xx with a reason | answered and compared | wrong scores | 5xx | crashes |",
        "|---|---|---|---|---|---|---|",
        f"| changed bodies | {bodies['count']:,} | {refused:,} | {bodies['compared']:,} | {bodies['wrong']} | "
        f"{bodies['server_errors']} | {bodies['crashes']} |",
    ]
    cases = made["cases"].get("generated", 0)
    return "\n".join(lines) + (
        f"\n\nMemory (PSS) after 2%, 50% and 100% of them: {sizes[0]:.1f}, {sizes[len(sizes) // 2]:.1f} and "
        f"{sizes[-1]:.1f} MB; "
        f"{bodies['without_answer']} without an answer. schemathesis: {cases:,} cases, exit code {made['exit']} "
        f"(0: none failed), {made['crashes']} crashes.\n"
    )


def hostile_requests() -> Json:
    """Both kinds."""
    return {"mutated": mutated(), "schemathesis": schemathesis()}
