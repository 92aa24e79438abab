"""A model exported and running: where every number of the result is read off."""

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
from flyweight.planning.requests import as_arrays
from flyweight.task.scores import Scores, call_model, evaluating
from flyweight.task.task import Split, Task


@dataclass(frozen=True, eq=False)
class Artefact:
    """An exported model with what PyTorch says of it.

    Args:
        model: the module it was exported from.
        exported: the files.
        samples: sample requests; reference: PyTorch's scores of each.
        noise: by how much rounding to few bits moves the scores of each sample, root mean square; 0 where none is.
        macs: multiply-accumulates of one row.
    """

    model: nn.Module
    exported: Exported
    samples: tuple[dict[str, NDArray[Any]], ...]
    reference: tuple[NDArray[Any], ...]
    macs: Macs
    noise: tuple[float, ...] = ()


def make_artefact(
    model: nn.Module, samples: list[dict[str, Tensor]], rows: int, folder: Path, *, name: str = "model"
) -> Artefact:
    """Export a model into a folder and note what PyTorch says of the samples.

    Args:
        rows: rows of the first sample.

    Raises:
        ExportError: the model cannot be exported; names the operator and the module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with evaluating(model), torch.no_grad():
        reference = tuple(call_model(model, sample, rows).numpy() for sample in samples)
        noise = tuple(_rounding(model, sample, scores) for sample, scores in zip(samples, reference, strict=True))
        exported = export_onnx(model, samples[0], folder, name=name)
        macs = count_macs(model, samples[0], rows)
    return Artefact(model, exported, tuple(as_arrays(sample) for sample in samples), reference, macs, noise)


def _rounding(model: nn.Module, sample: dict[str, Tensor], scores: NDArray[Any]) -> float:
    """Return the root mean square of what rounding does to the scores of a sample."""
    with Unrounded() as mode:
        exact = call_model(model, sample, len(scores)).numpy()
    return float(np.sqrt(np.mean(np.square(exact - scores, dtype=np.float64)))) if mode.rounds else 0.0


def artefact_scores(task: Task, prepared: Prepared, split: Split) -> Scores:
    """Run an exported model over a split in its engine."""
    outputs: list[NDArray[Any]] = []
    targets: list[Tensor] = []
    groups: list[Tensor] = []
    for inputs, target, group in task.batches(split):
        arrays = as_arrays(inputs)
        outputs.append(np.asarray(prepared.run({name: arrays[name] for name in prepared.input_names})))
        targets.append(target)
        if group is not None:
            groups.append(group)
    joined = torch.cat(targets).numpy()
    return Scores(
        outputs=_squeezed(np.concatenate(outputs).astype(np.float64)),
        targets=_squeezed(joined),
        groups=torch.cat(groups).long().numpy() if groups else None,
    )


def _squeezed(array: NDArray[Any]) -> NDArray[Any]:
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
