"""Requests of 100 to 700 candidates that come whatever the answers: for minutes at 70% of capacity, and at 200%.

    python benchmarks/serving_limits.py steady
    python benchmarks/serving_limits.py overload

One worker on one core, the load on another, so that neither takes the other's time. Capacity is what 16 callers get who
ask again at once. Every score is compared with what the bundle gives in a process. Time that the machine itself took
away (steal) is told beside each minute.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.zoo.cache import cache_folder
from serving_requests import random_sizes, real_requests, write_requests
from serving_running import Service, running
from serving_throughput import uncompressed

HERE = Path(__file__).parent
BUNDLE = cache_folder() / "auto" / "complete-journey-10" / "model.fly"
REQUESTS, CALLERS, CAPACITY_SECONDS, STEADY_SECONDS, OVERLOAD_SECONDS = 200, 16, 10, 300, 60
STEADY_LOAD, OVERLOAD, PSS_SECONDS = 0.7, 2.0, 10
SERVICE_CORE, CLIENT_CORE = "0", "1"
Json = dict[str, Any]


def ask(address: str, folder: Path, seconds: float, *, rate: float | None = None, connections: int = CALLERS) -> Json:
    """Run the load on its own core."""
    command = ["taskset", "-c", CLIENT_CORE, sys.executable, str(HERE / "serving_client.py"), address, str(folder)]
    command += ["--seconds", str(seconds), "--connections", str(connections)]
    command += ["--rate", str(rate)] if rate else []
    found: Json = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def write(folder: Path, bundle: Path) -> None:
    """Write the requests and their scores."""
    write_requests(folder, real_requests(random_sizes(REQUESTS)), [bundle])


def capacity(service: Service, folder: Path) -> Json:
    """What callers get who ask again at once."""
    ask(service.http, folder, 3)
    return ask(service.http, folder, CAPACITY_SECONDS)


def steady(folder: Path) -> Json:
    """Minutes at a part of capacity."""
    write(folder, BUNDLE)
    with running(BUNDLE, cores=SERVICE_CORE) as service:
        most = capacity(service, folder)
        workers, sizes, ended = service.workers(), [], threading.Event()

        stolen = [steal()]

        def watch() -> None:
            while not ended.wait(PSS_SECONDS):  # the kernel walks all pages for it, and holds the worker up
                sizes.append(service.pss())
                stolen.append(steal())

        watching = threading.Thread(target=watch)
        watching.start()
        told = ask(service.http, folder, STEADY_SECONDS, rate=STEADY_LOAD * most["a_second"], connections=512)
        ended.set()
        watching.join()
        assert service.workers() == workers
    rows = np.load(folder / "answers.npz")["rows"]
    minutes = [_minute(rows, one) for one in range(STEADY_SECONDS // 60)]
    each = 60 // PSS_SECONDS
    for number, minute in enumerate(minutes):
        part = stolen[each * number : each * (number + 1) + 1]
        minute["stolen_seconds"] = part[-1] - part[0]
        minute["pss"] = float(np.mean(sizes[each * number : each * (number + 1)]))
    first, last = minutes[0]["pss"], minutes[-1]["pss"]
    return {"capacity": most, "load": STEADY_LOAD, **told, "minutes": minutes, "pss_first": first, "pss_last": last}


def steal() -> float:
    """Seconds that the host took from all processors so far."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


def _minute(rows: Any, minute: int) -> Json:
    chosen = rows[(rows[:, 0] >= 60 * minute) & (rows[:, 0] < 60 * minute + 60)]
    p50, p99, p999 = np.percentile(1e3 * (chosen[:, 2] - chosen[:, 0]), (50, 99, 99.9)).tolist()
    refused = int((chosen[:, 3] != 200).sum())
    return {"n": len(chosen), "refused": refused, "p50": p50, "p99": p99, "p999": p999}


def overload(folder: Path) -> Json:
    """A minute of more than can be answered."""
    return overloaded(folder, BUNDLE)


def overload_heavy(folder: Path) -> Json:
    """The same for the model as it was exported, in float32."""
    return overloaded(folder, uncompressed(rewrite=False))


def overloaded(folder: Path, bundle: Path) -> Json:
    write(folder, bundle)
    with running(bundle, cores=SERVICE_CORE) as service:
        before = capacity(service, folder)
        rate = OVERLOAD * before["a_second"]
        told = ask(service.http, folder, OVERLOAD_SECONDS, rate=rate, connections=1024)
        time.sleep(1)
        after = capacity(service, folder)
    return {"capacity": before, "rate": rate, **told, "after": after}


def steady_table(found: Json) -> str:
    lines = ["| minute | requests | refused | p50 ms | p99 ms | p99.9 ms | memory MB | stolen by the host, s |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for number, row in enumerate(found["minutes"], 1):
        times = f"{row['p50']:.2f} | {row['p99']:.2f} | {row['p999']:.2f}"
        around = f"{row['pss'] / 2**20:.1f} | {row['stolen_seconds']:.1f}"
        lines.append(f"| {number} | {row['n']:,} | {row['refused']:,} | {times} | {around} |")
    sizes = found["pss_first"] / 2**20, found["pss_last"] / 2**20
    bad = found["sent"] - found["statuses"].get("200", 0)
    return "\n".join(lines) + (
        f"\n\nCapacity {found['capacity']['a_second']:,.0f} requests a second, load {100 * found['load']:.0f}% of it: "
        f"{found['sent']:,} requests, {bad:,} errors, {found['wrong']:,} wrong scores. "
        f"Memory (PSS of all processes) {sizes[0]:.1f} MB in the first minute, {sizes[1]:.1f} MB in the last.\n"
    )


def overload_table(found: Json) -> str:
    lines = ["| | requests a second | p50 ms | p99 ms |", "|---|---|---|---|"]
    kept, refused = found["capacity"], found["refused_ms"]
    count = found["sent"] - found["statuses"].get("200", 0)
    rows = (
        ("capacity, 16 callers who ask again", kept["a_second"], kept["good_ms"]),
        (f"answered, of {found['rate']:,.0f} that come", found["a_second"], found["good_ms"]),
        ("refused, 429, from sending on", count / found["seconds"], refused),
        ("capacity afterwards", found["after"]["a_second"], found["after"]["good_ms"]),
    )
    lines += [f"| {name} | {rate:,.0f} | {ms['p50']:.2f} | {ms['p99']:.2f} |" for name, rate, ms in rows if ms]
    return "\n".join(lines) + (
        f"\n\nGoodput is {100 * found['a_second'] / kept['a_second']:.0f}% of capacity; {found['wrong']} wrong scores, "
        f"{found['unanswered']} requests without an answer.\n"
    )
