"""Whether a sharded bundle is whole: the front, the shards that lie beside it, and the scores over running servers."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from flyweight.bundle.load import load
from flyweight.bundle.shards.read import Front, read_front
from flyweight.bundle.shards.shard_folder import FOLDER, open_shard
from flyweight.bundle.verify import Check, Verification, agreements, check_vocabularies
from flyweight.errors import BundleError, FlyweightError


def verify_sharded(
    path: str | Path, shards: Sequence[str] | None = None, *, engine: str | None = None
) -> Verification:
    """Check a front's hashes and graphs and every shard that lies beside it, and score its stored requests.

    Args:
        shards: the servers' addresses; without them nothing can be scored, and the bundle is not verified.
        engine: the one that was fastest otherwise.
    """
    path = Path(path)
    try:
        front = read_front(path)
    except BundleError as error:
        return Verification(path, (Check("files", False, str(error)),))
    sizes, nodes = front.bundle.sizes, front.bundle.graph.nodes
    checks = [
        Check("files", True, f"{len(sizes)} files, {sum(sizes.values()):,} bytes, every size and hash as recorded"),
        Check("model", True, f"{nodes:,} nodes, every operator and constant known and within bounds"),
        *check_vocabularies(front.bundle),
        *_folders(front),
        _scores(front, shards, engine),
    ]
    return Verification(path, tuple(checks))


def _folders(front: Front) -> Iterator[Check]:
    for number, due in enumerate(front.plan.files):
        folder = front.bundle.path / f"{FOLDER}{number}"
        if not folder.exists():
            continue  # it lies with its server, which checks it as it starts
        try:
            record = open_shard(folder).record
        except BundleError as error:
            yield Check(folder.name, False, str(error))
            continue
        same = (record.plan, record.shard, record.file) == (front.hash, number, due)
        other = f"it is shard {record.shard} of plan {record.plan[:16]}..., {number} of {front.hash[:16]}... is due"
        yield Check(folder.name, same, f"{due.bytes:,} bytes" if same else other)


def _scores(front: Front, shards: Sequence[str] | None, engine: str | None) -> Check:
    if shards is None:
        return Check("scores", False, f"not scored: give the addresses of its {front.plan.shards} servers")
    try:
        with load(front.bundle.path, shards=shards, engine=engine) as ranker:
            found = agreements(ranker)
            name = f"scores in {ranker.engine}"
    except FlyweightError as error:
        return Check("scores", False, str(error))
    if not found:
        return Check(name, False, "the bundle holds no stored requests")
    bad = next((one for one in found if not one.ok), None)
    worst = max(found, key=lambda one: one.max_rel) if bad is None else bad
    return Check(name, bad is None, f"{len(found)} stored requests over {front.plan.shards} shards: {worst.words}")
