"""Making a bundle prove itself: read again, hashed again, and its stored requests scored again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from flyweight.bundle.manifest import DATA, MODEL
from flyweight.bundle.ranker import Ranker
from flyweight.bundle.read import Bundle, read_bundle
from flyweight.bundle.samples import Sample
from flyweight.engines.agreement import Agreement, agreement
from flyweight.engines.registry import ENGINES, KNOWN, find_engine, tolerance_in
from flyweight.errors import BundleError, FlyweightError


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: whether it holds, and in words what was seen."""

    name: str
    ok: bool
    words: str


@dataclass(frozen=True)
class Verification:
    """All checks of a bundle; `ok` when every one holds."""

    path: Path
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    def __str__(self) -> str:
        lines = [f"{'ok    ' if check.ok else 'FAILED'}  {check.name}: {check.words}" for check in self.checks]
        return "\n".join([f"{self.path}: {'verified' if self.ok else 'NOT verified'}", *lines])


def verify(path: str | Path, *, engine: str | None = None) -> Verification:
    """Re-read a bundle, check every hash, and score its stored requests in each engine that is here.

    Scores must agree with the reference model's to 1e-4 relative, with the same order of candidates; those of a model
    rounded to few bits to what the rounding does, those of an engine that computes in bfloat16 to 2^-5. An engine that
    was not offered for this bundle when it was made is named and not run, unless asked for by `engine`.

    Raises:
        InputError: the engine asked for is unknown.

    Example:
        >>> verify("ranker.fly").ok  # doctest: +SKIP
        True
    """
    path = Path(path)
    if engine is not None:
        find_engine(engine)
    try:
        bundle = read_bundle(path)
    except BundleError as error:
        return Verification(path, (Check("files", False, str(error)),))
    chosen = [bundle.timing.engine] if bundle.timing.engine in KNOWN else []
    names = list(dict.fromkeys([*ENGINES, *chosen])) if engine is None else [engine]
    total = sum(bundle.sizes.values())
    checks = [
        Check("files", True, f"{len(bundle.sizes)} files, {total:,} bytes, every size and hash as recorded"),
        Check("model", True, f"{bundle.graph.nodes:,} nodes, every operator and constant known and within bounds"),
        _check_size(bundle),
        *check_vocabularies(bundle),
    ]
    scored = [check for name in names if (check := _check_engine(bundle, name, engine is not None)) is not None]
    if not any(check.name.startswith("scores") for check in scored):
        reasons = "; ".join(check.words for check in scored)
        scored.append(Check("scores", False, f"no engine here could score the stored requests ({reasons})"))
    return Verification(path, (*checks, *scored))


def _check_size(bundle: Bundle) -> Check:
    on_disk = bundle.sizes[MODEL] + bundle.sizes.get(DATA, 0)
    said = bundle.manifest.after.bytes
    words = f"the model lies on disk in {on_disk:,} bytes, the manifest says {said:,}"
    return Check("size", on_disk == said, words)


def check_vocabularies(bundle: Bundle) -> list[Check]:
    """Look every raw value up, where there are any: each must be found, with its own id."""
    lost = {name: count for name, one in bundle.vocabularies.items() if (count := one.lost())}
    if lost:
        words = ", ".join(f"{count:,} of {name!r}" for name, count in lost.items())
        return [Check("vocabularies", False, f"raw values that a look-up does not find, or with another id: {words}")]
    counts = ", ".join(f"{name} {len(one):,}" for name, one in bundle.vocabularies.items())
    return [Check("vocabularies", True, f"every raw value is found with its id: {counts}")] if counts else []


def _check_engine(bundle: Bundle, name: str, asked: bool) -> Check | None:
    """Score the stored requests in one engine; None where the engine is simply not installed."""
    engine = find_engine(name)
    missing = engine.available()
    if missing is not None:
        return Check(f"engine {name}", not asked, f"not run: {missing}")
    unfit = engine.cannot_run(bundle.model)
    if unfit is None and not asked:
        unfit = next((tried.why for tried in bundle.timing.engines if tried.name == name and tried.why), None)
    if unfit is not None:
        return Check(f"engine {name}", not asked, f"not run: {unfit}")
    if not bundle.samples:
        return Check(f"scores in {name}", False, "the bundle holds no stored requests")
    try:
        with Ranker(bundle, engine.prepare(bundle.model, 0), name) as ranker:
            found = agreements(ranker)
    except FlyweightError as error:
        return Check(f"scores in {name}", False, str(error))
    bad = next((one for one in found if not one.ok), None)
    rows = sum(len(sample.scores) for sample in bundle.samples)
    worst = max(found, key=lambda one: one.max_rel) if bad is None else bad
    return Check(f"scores in {name}", bad is None, f"{len(found)} stored requests, {rows:,} rows: {worst.words}")


def agreements(ranker: Ranker) -> list[Agreement]:
    """Score every stored batch and compare it with the reference model's scores, as closely as the engine can be held.

    Raises:
        EngineError: the engine failed.
    """
    allowed = tolerance_in(ranker.engine)
    samples = ranker.bundle.samples
    return [agreement(one.scores, scored(ranker, one), allowed, noise=one.noise) for one in samples]


def scored(ranker: Ranker, sample: Sample) -> NDArray[Any]:
    """Score a stored batch, as one request where it is one: that is how a hoisted model is served."""
    requests = ranker.bundle.graph.requests
    if not requests or any((sample.inputs[name] != sample.inputs[name][:1]).any() for name in requests):
        return ranker.predict(sample.inputs)
    asked = {name: sample.inputs[name][:1] for name in sample.inputs if ranker.manifest.inputs[name].role == "request"}
    rest = {name: value for name, value in sample.inputs.items() if name not in asked}
    return ranker.score(asked, rest)
