"""What the original gives in the hands of others: as it is exported, and rounded by ONNX Runtime's own tool."""

import logging
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from flyweight.cost.latency import time_rounds
from flyweight.engines.registry import find_engine
from flyweight.errors import FlyweightError
from flyweight.planning.artefact import artefact_scores
from flyweight.planning.requests import as_arrays
from flyweight.planning.search.workbench import Workbench
from flyweight.report.search_data import PeerPoint
from flyweight.task.progress import stage


def peer_points(bench: Workbench) -> tuple[PeerPoint, ...]:
    """Return what other ways of serving the original give, as far as they run here."""
    with stage("Measuring other ways of serving the original", seconds=15.0):
        return tuple(_points(bench))


def _points(bench: Workbench) -> Iterator[PeerPoint]:
    artefact = bench.before
    try:
        yield _point(bench, artefact.exported.path, artefact.exported.bytes, "original, ONNX Runtime")
    except FlyweightError:
        return
    with tempfile.TemporaryDirectory(prefix="flyweight-peer-") as folder:
        try:
            path = Path(folder, "model.onnx")
            _round(artefact.exported.path, path)
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
            yield _point(bench, path, size, "ONNX Runtime dynamic int8")
        except Exception:  # whatever another's tool throws on a model, it is a comparison less and no more
            return


def _round(original: Path, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logger, silent = logging.getLogger(), logging.NullHandler()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it advises users of its own
    logger.addHandler(silent)  # without one, its advice gives the program a handler that stays
    try:
        quantize_dynamic(original, path, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logger.setLevel(level)
        logger.removeHandler(silent)


def _point(bench: Workbench, path: Path, size: int, name: str) -> PeerPoint:
    """Time a request and score validation in ONNX Runtime."""
    prepared = find_engine("onnxruntime").prepare(path, bench.threads)
    try:
        arrays = as_arrays(bench.request)
        given = {one: arrays[one] for one in prepared.input_names}
        rows = max(len(values) for values in arrays.values())
        rounds = time_rounds({name: partial(prepared.run, given)}, candidates=rows, threads=bench.threads, seconds=1.0)
        scores = artefact_scores(bench.task, prepared, "validation")
    finally:
        prepared.close()
    return PeerPoint(name, size, rounds.latency(name).p50, next(iter(bench.drops(scores).values())))
