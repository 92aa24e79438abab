"""Writing the front of a sharded bundle: two graphs, the manifest with the plan, and what the bundle had besides."""

from pathlib import Path

import onnx
from onnx import ModelProto
from onnx.external_data_helper import load_external_data_for_model

import flyweight
from flyweight.bundle.manifest import DATA, FORMAT, MANIFEST, MODEL, REPORT, SAMPLES, VOCABULARIES
from flyweight.bundle.read import Bundle
from flyweight.bundle.shards.cut import Cut
from flyweight.bundle.shards.plan import LOOKUPS, SHARDED_FORMAT, Plan
from flyweight.bundle.shards.read import FILES
from flyweight.bundle.strict_json import canonical
from flyweight.bundle.timing import Latencies
from flyweight.bundle.write import copy_file, described, write_file, write_timing
from flyweight.errors import InputError

#: Constants of more bytes lie beside the graph.
INLINE = 1024


def write_lookups(part: Path, cut: Cut, bundle: Bundle) -> None:
    """Write the graph that says which rows are read.

    Raises:
        InputError: constants in it are too large.
    """
    load_external_data_for_model(cut.lookups, str(bundle.path))
    data = cut.lookups.SerializeToString()
    if len(data) > FILES[LOOKUPS]:
        raise InputError(
            f"What says which rows of {bundle.path} are read takes {len(data):,} bytes, more than {FILES[LOOKUPS]:,}; "
            "raise the bound (over=, --over)."
        )
    write_file(part / LOOKUPS, data)


def write_front(part: Path, cut: Cut, bundle: Bundle, plan: Plan) -> None:
    """Write all of a front but the graph of the lookups, which is there already."""
    _save_model(cut.front, part, bundle)
    carried = (SAMPLES, VOCABULARIES) if bundle.vocabularies else (SAMPLES,)
    copies = {name: copy_file(bundle.path / name, part / name) for name in carried}
    page = copy_file(bundle.path / REPORT, part / REPORT)
    written = [name for name in (MODEL, DATA, LOOKUPS) if (part / name).is_file()]
    files = {**copies, **{name: described((part / name).read_bytes()) for name in written}}
    manifest = bundle.manifest.as_written()
    manifest.update(
        format=FORMAT if bundle.vocabularies else SHARDED_FORMAT,
        flyweight=flyweight.__version__,
        files=files,
        shards=plan.model_dump(),
    )
    text = canonical(manifest)
    write_file(part / MANIFEST, text)
    # What was timed is the bundle in one piece: engine and threads are a good guess, the times would be wrong.
    timing = bundle.timing.model_copy(update={"latency": Latencies(), "resident_bytes": {}})
    write_timing(part, timing, {MANIFEST: described(text), REPORT: page})


def _save_model(model: ModelProto, part: Path, bundle: Bundle) -> None:
    load_external_data_for_model(model, str(bundle.path))
    onnx.save_model(model, part / MODEL, save_as_external_data=True, location=DATA, size_threshold=INLINE)
