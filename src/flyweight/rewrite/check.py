"""Whether a rewritten model still gives the scores of the one it was made from, in every form of a call."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flyweight.errors import FlyweightError
from flyweight.graph.unrounded import Unrounded
from flyweight.rewrite.hoisted_model import HoistedModel, one_request
from flyweight.task.field import REQUEST_INDEX
from flyweight.task.scores import call_model, evaluating

#: Largest difference that float32 explains, of the largest score's size or of 1 where all are smaller.
TOLERANCE = 1e-5
Batch = dict[str, Tensor]
#: Requests of several sizes, in no order, three of six without candidates: the first three, or the last three. So
#: whatever looks at other requests than its own gives other scores than one that looks at other rows.
_REQUESTS = 6
_PATTERNS = ((2, 0, 0, 1, 0, 2), (5, 3, 3, 4, 3, 5))


@dataclass(frozen=True)
class Difference:
    """How far two models' scores lie apart: relative to the largest, and whether that is only rounding."""

    far: float
    ok: bool
    words: str


def compare(old: nn.Module, new: nn.Module, batches: Sequence[Batch], tolerance: float = TOLERANCE) -> Difference:
    """Run both models on flat batches, and a hoisted one also on one request, on one row and on several requests.

    A model rounded to few bits is compared without the rounding; with it, a sum in another order may fall on the other
    side of a step, so scores then may differ by what rounding itself does to them, root mean square.

    Scores that all lie within the tolerance are in the same order, but for those closer than twice of it.
    """
    worst = Difference(0.0, True, "no scores to compare")
    with evaluating(old), evaluating(new), torch.no_grad():
        for batch in batches:
            for flat, given in _forms(new, batch):
                found = _compared(old, new, flat, given, tolerance)
                if not found.ok:
                    return found
                worst = max(worst, found, key=lambda one: one.far)
    return worst


def _forms(new: nn.Module, batch: Batch) -> Iterator[tuple[Batch, Batch]]:
    """Yield flat batches, each with the same rows as the new model takes them."""
    if not isinstance(new, HoistedModel):
        yield batch, batch
        return
    rows = max(len(value) for value in batch.values())
    request = new.request_names
    yield batch, {**batch, REQUEST_INDEX: torch.arange(rows)}
    unlike = _different_requests(batch, request, rows)
    few = {name: value[unlike] if name in request else value for name, value in batch.items()}
    for pattern in _PATTERNS:
        index = torch.tensor(pattern).repeat(-(-rows // len(pattern)))[:rows] % len(unlike)
        several = {name: few[name][index] if name in request else value for name, value in batch.items()}
        yield several, {**few, REQUEST_INDEX: index}
    last = rows - 1
    of_last = {name: value[[last] * rows] if name in request else value for name, value in batch.items()}
    yield of_last, one_request(batch, request, last)
    first = {name: value[:1] for name, value in batch.items()}
    yield first, first


def _different_requests(batch: Batch, request: tuple[str, ...], rows: int) -> list[int]:
    """Return a row each of up to six requests, all different: alike, they would hide that one reads another."""
    columns = torch.cat([batch[name].reshape(rows, -1).double() for name in request], 1).cpu().numpy()
    found: dict[bytes, int] = {}
    for row in range(rows):
        found.setdefault(columns[row].tobytes(), row)
        if len(found) == _REQUESTS:
            break
    return list(found.values())


def _compared(old: nn.Module, new: nn.Module, flat: Batch, given: Batch, tolerance: float) -> Difference:
    rows = max(len(value) for value in flat.values())
    try:
        with Unrounded() as mode:
            wanted, seen = call_model(old, flat, rows).double(), call_model(new, given, rows).double()
    except (FlyweightError, RuntimeError) as error:
        return Difference(float("inf"), False, f"it does not run: {str(error).splitlines()[0][:200]}")
    found = _difference(wanted, seen, tolerance)
    if not found.ok or not mode.rounds:
        return found
    exact = wanted
    wanted, seen = call_model(old, flat, rows).double(), call_model(new, given, rows).double()
    apart, noise = (float((one - wanted).square().mean().sqrt()) for one in (seen, exact))
    if apart > noise:
        return Difference(found.far, False, f"{apart:.2g} root mean square apart, where rounding does {noise:.2g}")
    return found


def _difference(wanted: Tensor, seen: Tensor, tolerance: float) -> Difference:
    if wanted.shape != seen.shape:
        return Difference(float("inf"), False, f"scores of shape {tuple(seen.shape)} instead of {tuple(wanted.shape)}")
    if not bool(torch.isfinite(seen).all()):
        return Difference(float("inf"), False, "scores that are not finite")
    scale = max(1.0, float(wanted.abs().max())) if wanted.numel() else 1.0
    far = float((wanted - seen).abs().max()) / scale if wanted.numel() else 0.0
    return Difference(far, far <= tolerance, f"largest difference {far:.2g} over {wanted.numel():,} scores")
