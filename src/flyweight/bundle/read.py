"""Reading a bundle: everything is checked, nothing of it is run, and no engine is started."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flyweight
from flyweight.bundle.entry import File
from flyweight.bundle.files import check_content, check_file, check_folder, list_sizes, read_bytes
from flyweight.bundle.graph import Graph, check_graph
from flyweight.bundle.manifest import DATA, FORMAT, MANIFEST, MODEL, REPORT, SAMPLES, TIMING, VOCABULARIES, Manifest
from flyweight.bundle.samples import Sample, SamplesFile, samples_from_entry
from flyweight.bundle.strict_json import checksum, one_line, parse, validate
from flyweight.bundle.timing import TimingFile
from flyweight.bundle.vocabulary_file import read_vocabularies
from flyweight.errors import BundleError
from flyweight.task.joined_vocabularies import JoinedVocabularies


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and found sound.

    Args:
        path: its folder.
        manifest, timing: its records.
        samples: stored requests with the reference model's scores.
        graph: what was learned of the model.
        sizes: bytes of each file on disk.
        vocabularies: the raw values of the inputs that have them.
    """

    path: Path
    manifest: Manifest
    timing: TimingFile
    samples: tuple[Sample, ...]
    graph: Graph
    sizes: dict[str, int]
    vocabularies: JoinedVocabularies = field(default_factory=JoinedVocabularies)

    @property
    def model(self) -> Path:
        """Path of the ONNX file."""
        return self.path / MODEL


def read_bundle(path: str | Path) -> Bundle:
    """Read and check a bundle: files, sizes, versions, hashes, records, stored samples and the ONNX graph.

    Raises:
        BundleError: the bundle is damaged, altered, incomplete, of a newer format, or asks for what no bundle may.

    Example:
        >>> read_bundle("ranker.fly").manifest.drop.high  # doctest: +SKIP
        0.0004
    """
    path = Path(path)
    try:
        return _read(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror or one_line(error)}); check the path.") from None
    except ValueError as error:  # a path with a zero byte in it
        raise BundleError(f"{str(path)!r} cannot be a bundle ({one_line(error)}); check the path.") from None


def _read(path: Path) -> Bundle:
    check_folder(path)
    manifest, manifest_bytes = _read_manifest(path)
    sizes = list_sizes(path)
    timing = read_timing(path)
    for name in sorted({MANIFEST, REPORT} - timing.files.keys()):
        raise BundleError(f"{path / TIMING} lacks the hash of {name}; the bundle was altered: get it again.")
    check_hash(path / MANIFEST, timing.files["manifest.json"], manifest_bytes)
    check_file(path / REPORT, timing.files["report.html"])
    _check_names(path, manifest, sizes)
    if DATA in sizes:
        check_file(path / DATA, manifest.files["model.onnx.data"])
    data = read_bytes(path / MODEL)
    check_hash(path / MODEL, manifest.files["model.onnx"], data)
    graph = check_graph(data, sizes.get(DATA), manifest.inputs, str(path / MODEL))
    samples = read_samples(path, manifest, graph)
    return Bundle(path, manifest, timing, samples, graph, sizes, checked_vocabularies(path, manifest))


def checked_vocabularies(path: Path, manifest: Manifest) -> JoinedVocabularies:
    """Return a bundle's vocabularies, held against their hash and the inputs; none where it has none."""
    if not manifest.vocabularies:
        return JoinedVocabularies()
    check_file(path / VOCABULARIES, manifest.files["vocabularies.safetensors"])
    rows = {name: manifest.inputs[name].rows or 0 for name in manifest.vocabularies}
    return read_vocabularies(path / VOCABULARIES, manifest.vocabularies, rows)


def _read_manifest(path: Path) -> tuple[Manifest, bytes]:
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path} lacks {MANIFEST}: it is not a bundle, or an incomplete one. Check the path.")
    data = read_bytes(file)
    value = parse(data, str(file))
    _check_format(value, file)
    manifest = validate(Manifest, value, str(file))
    check_records(manifest, file)
    return manifest, data


def _check_format(value: Any, file: Path) -> None:
    version = value.get("format") if isinstance(value, dict) else None
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise BundleError(f"{file} names no bundle format (a whole number from 1 on); it is not a bundle's manifest.")
    if "shards" in value:
        raise BundleError(
            f"{file.parent} is a sharded bundle, whose tables lie with servers: fw.load({str(file.parent)!r}, "
            "shards=['host:port', ...])."
        )
    if version > FORMAT:
        maker = one_line(value.get("flyweight", "of a later version"), 40)
        raise BundleError(
            f"{file} is of bundle format {min(version, 10**9)}; flyweight {flyweight.__version__} reads up to "
            f"{FORMAT}. It was written by flyweight {maker}: pip install -U 'flyweight>={maker}'."
        )


def check_records(manifest: Manifest, file: Path) -> None:
    """Check what no single field can: id maps and vocabularies against inputs and files, and ids against dtypes."""
    for name in manifest.vocabularies:
        if name not in manifest.inputs or manifest.inputs[name].rows is None:
            raise BundleError(f"{file}: there is a vocabulary of {name!r}, which is no input of ids. It was altered.")
    if bool(manifest.vocabularies) != (VOCABULARIES in manifest.files):
        raise BundleError(f"{file}: vocabularies are there and {VOCABULARIES} is not, or the reverse. It was altered.")
    for name, spec in manifest.inputs.items():
        if spec.rows is not None and not spec.dtype.startswith(("int", "uint")):
            raise BundleError(
                f"{file}: input {name!r} has rows but dtype {spec.dtype}; ids are whole numbers. It was altered."
            )
        if spec.unknown is not None and (spec.rows is None or spec.unknown >= spec.rows):
            raise BundleError(f"{file}: unknown values of {name!r} map to {spec.unknown}, no id of it. It was altered.")
    for name, ids in manifest.id_maps.items():
        rows = manifest.inputs[name].rows if name in manifest.inputs else None
        if rows != len(ids):
            raise BundleError(
                f"{file}: the id map of {name!r} has {len(ids):,} entries for {rows} rows. It was altered."
            )


def read_timing(path: Path) -> TimingFile:
    """Return a bundle's timing, held against its own checksum."""
    file = path / TIMING
    value = parse(read_bytes(file), str(file))
    timing = validate(TimingFile, value, str(file))
    seen = checksum({key: item for key, item in value.items() if key != "checksum"})
    if seen != timing.checksum:
        raise BundleError(f"{file} does not fit its own checksum; it was altered or damaged. Get the bundle again.")
    return timing


def read_samples(path: Path, manifest: Manifest, graph: Graph) -> tuple[Sample, ...]:
    """Return a bundle's stored requests, held against their hash and the inputs."""
    file = path / SAMPLES
    data = read_bytes(file)
    check_hash(file, manifest.files["samples.json"], data)
    entry = validate(SamplesFile, parse(data, str(file)), str(file))
    return samples_from_entry(entry, manifest.inputs, graph.flat, str(file))


def _check_names(path: Path, manifest: Manifest, sizes: dict[str, int]) -> None:
    due, seen = set(manifest.files), set(sizes) - {MANIFEST, TIMING, REPORT}
    odd = sorted(due ^ seen) or sorted({MODEL, SAMPLES} - due)
    if odd:
        where = "is not in the manifest" if odd[0] in seen else "is in the manifest and not on disk"
        raise BundleError(f"{path / odd[0]} {where}; the bundle is incomplete or was altered: get it again.")


def check_hash(file: Path, due: File, data: bytes) -> None:
    """Check what was read of a file against its size and hash."""
    check_content(file, due, len(data), hashlib.sha256(data).hexdigest())
