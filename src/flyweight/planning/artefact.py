"""A model exported and running: where every number of the result is read off."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.cost.macs import Macs, count_macs
from flyweight.engines.engine import Prepared
from flyweight.engines.export import Exported, export_onnx
from flyweight.graph.unrounded import Unrounded
from flyweight.planning.requests import Arrays, as_arrays
from flyweight.rewrite.hoisted_model import HoistedModel
from flyweight.task.field import REQUEST_INDEX
from flyweight.task.scores import Scores, call_model, evaluating
from flyweight.task.task import Split, Task


@dataclass(frozen=True, eq=False)
class Artefact:
    """An exported model with what PyTorch says of it.

    Args:
        model: the module whose scores are due, called on flat batches.
        exported: the files.
        samples: flat sample batches; reference: PyTorch's scores of each.
        noise: by how much rounding to few bits moves the scores of each sample, root mean square; 0 where none is.
        macs: multiply-accumulates of one row.
        requests: inputs of the file that have a row for each request; empty where it takes flat batches.
    """

    model: nn.Module
    exported: Exported
    samples: tuple[dict[str, NDArray[Any]], ...]
    reference: tuple[NDArray[Any], ...]
    macs: Macs
    noise: tuple[float, ...] = ()
    requests: frozenset[str] = frozenset()

    @property
    def calls(self) -> tuple[dict[str, NDArray[Any]], ...]:
        """The samples as the file takes them; those of one request, each sample's last, as one request."""
        return tuple(
            one_request(sample, self.requests) if _is_of_one(sample, self.requests) else self.flat_call(sample)
            for sample in self.samples
        )

    def flat_call(self, arrays: Arrays) -> Arrays:
        """Return a flat batch as the file takes it: each row a request of its own."""
        return flat_call(arrays, self.requests)

    def one_call(self, arrays: Arrays) -> Arrays:
        """Return a flat batch that is all of one request as the file takes it."""
        return one_request(arrays, self.requests)


def flat_call(arrays: Arrays, requests: frozenset[str]) -> Arrays:
    """Return a flat batch as a file takes it that has a row for each request of some inputs; each row is one."""
    if not requests:
        return dict(arrays)
    rows = max(len(value) for value in arrays.values())
    return {**arrays, REQUEST_INDEX: np.arange(rows, dtype=np.int64)}


def make_artefact(
    model: nn.Module,
    samples: list[dict[str, Tensor]],
    rows: int,
    folder: Path,
    *,
    name: str = "model",
    served: nn.Module | None = None,
) -> Artefact:
    """Export a model into a folder and note what PyTorch says of the samples.

    Args:
        rows: rows of the first sample.
        served: what is exported in its place, a rewritten model of the same scores; None exports the model itself.

    Raises:
        ExportError: the model cannot be exported; names the operator and the module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    requests = frozenset(served.request_names) if isinstance(served, HoistedModel) else frozenset()
    samples = [*samples, *(_of_one_request(sample, requests) for sample in samples[:1] if requests)]
    with evaluating(model), torch.no_grad():
        reference = tuple(call_model(model, sample, rows).numpy() for sample in samples)
        noise = tuple(_rounding(model, sample, scores) for sample, scores in zip(samples, reference, strict=True))
        exported = export_onnx(model if served is None else served, samples[0], folder, name=name)
        macs = count_macs(model, samples[0], rows)
    arrays = tuple(as_arrays(sample) for sample in samples)
    return Artefact(model, exported, arrays, reference, macs, noise, requests)


def _of_one_request(sample: dict[str, Tensor], requests: frozenset[str]) -> dict[str, Tensor]:
    """Return a flat batch whose rows are all candidates of its last row's request."""
    return {
        name: value[-1:].expand_as(value).clone() if name in requests else value.clone()
        for name, value in sample.items()
    }


def one_request(arrays: Arrays, requests: frozenset[str]) -> Arrays:
    """Return a flat batch of one request with its request fields cut to one row."""
    return {name: value[:1] if name in requests else value for name, value in arrays.items()}


def _is_of_one(arrays: Arrays, requests: frozenset[str]) -> bool:
    return bool(requests) and all(bool((arrays[name] == arrays[name][:1]).all()) for name in requests)


def _rounding(model: nn.Module, sample: dict[str, Tensor], scores: NDArray[Any]) -> float:
    """Return the root mean square of what rounding does to the scores of a sample."""
    with Unrounded() as mode:
        exact = call_model(model, sample, len(scores)).numpy()
    return float(np.sqrt(np.mean(np.square(exact - scores, dtype=np.float64)))) if mode.rounds else 0.0


def artefact_scores(
    task: Task, prepared: Prepared, split: Split, form: Callable[[Arrays], Arrays] = dict
) -> Scores:
    """Run an exported model over a split in its engine; `form` makes of a flat batch what the file takes."""
    outputs: list[NDArray[Any]] = []
    targets: list[Tensor] = []
    groups: list[Tensor] = []
    for inputs, target, group in task.batches(split):
        arrays = as_arrays(inputs)
        call = form({name: arrays[name] for name in prepared.input_names})
        outputs.append(np.asarray(prepared.run(call)))
        targets.append(target)
        if group is not None:
            groups.append(group)
    return joined_scores(outputs, targets, groups)


def joined_scores(outputs: list[NDArray[Any]], targets: list[Tensor], groups: list[Tensor]) -> Scores:
    """Join what an exported model said of each batch."""
    joined = torch.cat(targets).numpy()
    return Scores(
        outputs=_squeezed(np.concatenate(outputs).astype(np.float64)),
        targets=_squeezed(joined),
        groups=torch.cat(groups).long().numpy() if groups else None,
    )


def _squeezed(array: NDArray[Any]) -> NDArray[Any]:
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
