"""One epoch of training with sparse gradients: an update costs what the rows of the batch cost, not the tables."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, repeat
from math import isfinite
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.errors import FlyweightError
from flyweight.zoo.batches import Batches
from flyweight.zoo.cache import Arrays, cached_arrays, fingerprint
from flyweight.zoo.progress import Progress, silent


@dataclass(frozen=True)
class Training:
    """How to train.

    Args:
        batch_rows: rows of a batch.
        table_rate: learning rate of the embeddings (SparseAdam: only rows of the batch move).
        dense_rate: learning rate of everything else (Adam).
        final_rate: the share of both rates that is left at the end; they fall linearly from 1.
        epochs: passes over the rows, in the order in which they lie.
        seed: of the weights the model starts with.
        threads: PyTorch's threads. One, because the steps are small: two threads wait for each other so often that they
            take six times as long as one when something else wants a core. And one gives the same bytes whatever
            the number of cores.
    """

    batch_rows: int = 1024
    table_rate: float = 0.002
    dense_rate: float = 0.001
    final_rate: float = 1.0
    epochs: int = 1
    seed: int = 0
    threads: int = 1


def train(model: nn.Module, data: Batches, settings: Training, progress: Progress = silent) -> None:
    """Train a ranker in place on the cross-entropy of its logits.

    Deterministic on one machine: the same model, data and settings give the same bytes.

    Raises:
        FlyweightError: the loss is no longer a finite number; says at which step, and what to lower.
    """
    optimizers = _optimizers(model, settings)
    batches = data.of_size(settings.batch_rows)
    steps, step = settings.epochs * len(batches), 0
    model.train()
    with _threads(settings.threads):
        for inputs, target in chain.from_iterable(repeat(batches, settings.epochs)):
            share = 1 - (1 - settings.final_rate) * step / steps
            loss = _step(model, optimizers, share, ({name: inputs[name] for name in data.names}, target))
            step += 1
            if not isfinite(loss):
                raise FlyweightError(
                    f"The loss is {loss} after {step:,} of {steps:,} training steps; "
                    f"lower table_rate={settings.table_rate} or dense_rate={settings.dense_rate}."
                )
            if step % 20 == 0 or step == steps:
                progress("Training", step, steps)
    model.eval()


def trained(
    make: Callable[[], nn.Module], data: Batches, settings: Training, key: str, progress: Progress = silent
) -> nn.Module:
    """Return `make()` trained, its weights kept in the cache and read from there the next time.

    The weights belong to `key` (the data), the model with the weights it starts from, the settings and PyTorch's
    version: another of these trains anew, as do missing or damaged files. An interrupt leaves nothing half-made.

    Args:
        make: builds the model; called under `settings.seed`.
        data: rows to train on.
        key: says which data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = make()

        def weights() -> Arrays:
            train(model, data, settings, progress)
            return {name: value.numpy() for name, value in model.state_dict().items()}

        kept = cached_arrays(f"weights-{_identity(model, settings, key)}", weights)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in kept.items()})
    return model.eval()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _identity(model: nn.Module, settings: Training, key: str) -> str:
    start = fingerprint({name: value.numpy() for name, value in model.state_dict().items()})
    about = {"key": key, "model": [repr(model), start], "settings": asdict(settings), "torch": torch.__version__}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return f"{type(model).__name__.lower()}-{digest[:16]}"


def _optimizers(model: nn.Module, settings: Training) -> list[tuple[torch.optim.Optimizer, float]]:
    """Return each optimizer with its full rate: tables with sparse gradients, other tables, all else."""
    tables = [module for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))]
    of_tables = {id(table.weight) for table in tables}
    groups: list[tuple[Callable[..., torch.optim.Optimizer], list[Tensor], float]] = [
        (torch.optim.SparseAdam, [table.weight for table in tables if table.sparse], settings.table_rate),
        (torch.optim.Adam, [table.weight for table in tables if not table.sparse], settings.table_rate),
        (torch.optim.Adam, [w for w in model.parameters() if id(w) not in of_tables], settings.dense_rate),
    ]
    return [(make(weights, lr=rate), rate) for make, weights, rate in groups if weights]


def _step(
    model: nn.Module,
    optimizers: list[tuple[torch.optim.Optimizer, float]],
    share: float,
    batch: tuple[dict[str, Tensor], Tensor],
) -> float:
    """Take one step at a share of the full rates and return the batch's mean loss before it."""
    inputs, target = batch
    for optimizer, rate in optimizers:
        optimizer.zero_grad()
        settings: dict[str, Any] = optimizer.param_groups[0]
        settings["lr"] = rate * share
    loss = F.binary_cross_entropy_with_logits(model(**inputs), target)
    loss.backward()  # type: ignore[no-untyped-call]
    for optimizer, _ in optimizers:
        optimizer.step()
    return loss.item()
