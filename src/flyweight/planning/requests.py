"""Sample requests: what an export is traced with, an engine is checked on, and a bundle proves itself with."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flyweight.task.field import Field
from flyweight.task.scores import call_model, cuts_by_row, evaluating
from flyweight.task.task import Task

Arrays = dict[str, NDArray[Any]]
#: Rows of a stored sample request, and the most numbers that go in and out of one: an image, or scores of all items,
#: are many, and a bundle is to be small.
SAMPLE_ROWS, SAMPLE_NUMBERS = 64, 8_192
#: Candidates of a timed request, the field's usual size.
CANDIDATES = 500
#: Rows of a timed call where nothing is scored by request: the batch of a server for images or text.
SERVED = 64


def first_batch(task: Task) -> dict[str, Tensor]:
    """Return a small batch of validation rows, cut where its inputs can be cut."""
    inputs, target, _ = next(task.batches("validation"))
    rows = len(target)
    with evaluating(task.model), torch.no_grad():
        outputs = call_model(task.model, inputs, rows)
    numbers = (sum(value.numel() for value in inputs.values()) + outputs.numel()) // rows  # of one row
    return _cut(inputs, rows, max(2, min(SAMPLE_ROWS, SAMPLE_NUMBERS // max(numbers, 1))))


def sample_requests(task: Task) -> list[dict[str, Tensor]]:
    """Return a batch as it comes, and one whose ids are spread over every vocabulary, lowest and highest included.

    Where there are no ids, the second would be the first again and is left out.
    """
    plain = first_batch(task)
    if not any(field.is_id for field in task.inputs.values()):
        return [plain]
    spread = {name: _spread(values, task.inputs[name]) for name, values in plain.items()}
    return [plain, spread]


def served_rows(task: Task) -> int:
    """Return the rows of a timed call: candidates of one request, or a batch where no input has such a role."""
    return CANDIDATES if any(field.role != "sample" for field in task.inputs.values()) else SERVED


def timed_request(task: Task, candidates: int = CANDIDATES) -> dict[str, Tensor]:
    """Return one request of so many candidates as a flat batch: request fields of one row, candidates of many.

    Inputs that cannot be cut by row (flat bags) are returned as the first batch holds them.
    """
    return timed_requests(task, candidates, 1)[0]


def timed_requests(task: Task, candidates: int, count: int) -> list[dict[str, Tensor]]:
    """Return `count` requests as `timed_request` does, the candidates of each the next rows of validation.

    Beyond its end the rows begin again. Only one is returned where inputs cannot be cut by row.
    """
    batches: list[dict[str, Tensor]] = []
    rows = 0
    for inputs, target, _ in task.batches("validation"):
        if not cuts_by_row(task.model, inputs, len(target)):
            return [inputs]
        batches.append(inputs)
        rows += len(target)
        if rows >= candidates * count:
            break
    joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}

    def request(number: int) -> dict[str, Tensor]:
        places = (number * candidates + torch.arange(candidates)) % rows
        return {
            name: values[places[:1]].expand(candidates, *values.shape[1:]).clone()
            if task.inputs[name].role == "request"
            else values[places]
            for name, values in joined.items()
        }

    return [request(number) for number in range(count)]


def as_arrays(inputs: dict[str, Tensor]) -> Arrays:
    """Return tensors as the arrays an engine takes."""
    return {name: values.detach().numpy() for name, values in inputs.items()}


def _cut(inputs: dict[str, Tensor], rows: int, most: int) -> dict[str, Tensor]:
    if any(len(value) != rows for value in inputs.values()):
        return inputs
    return {name: value[:most].clone() for name, value in inputs.items()}


def _spread(values: Tensor, field: Field) -> Tensor:
    """Replace ids by ids from the whole vocabulary, evenly spaced, the highest first and the lowest last."""
    if field.rows is None:
        return values.clone()
    spaced = np.linspace(field.rows - 1, 0, values.numel()).round().astype(np.int64)
    return torch.from_numpy(spaced).to(values.dtype).reshape(values.shape)
