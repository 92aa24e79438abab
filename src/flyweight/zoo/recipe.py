"""One cycle of AdamW, the recipe of models without sparse tables, and weights that are kept once trained."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.errors import FlyweightError
from flyweight.zoo.cache import Arrays, cached_arrays, fingerprint

#: Called with the number of an epoch, from 0, and the model, after the epoch.
Watch = Callable[[int, nn.Module], None]
Model = TypeVar("Model", bound=nn.Module)
Schedule = torch.optim.lr_scheduler.LRScheduler


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, on one thread.

    Args:
        epochs: passes over the training rows.
        rate: the highest learning rate, reached after a fifth of the steps; it ends at zero (one cycle, Smith 2018).
        decay: AdamW's weight decay, of matrices and filters only.
        batch: images or histories of a step.
        smoothing: of the labels.
        negatives: wrong items drawn for a step, shared by all of its positions (histories only).
        bfloat16: whether convolutions and matrix products run in it; the weights stay float32.
        seed: of the weights at the start, the order of the rows and every draw.
    """

    epochs: int
    rate: float
    decay: float
    batch: int = 128
    smoothing: float = 0.0
    negatives: int = 0
    bfloat16: bool = False
    seed: int = 0


def trained_once(
    make: Callable[[], Model], fit: Callable[[Model, Recipe], None], recipe: Recipe, key: str
) -> tuple[Model, float]:
    """Return `make()` trained by `fit` and the processor seconds it took, from the cache if it was done before.

    The weights belong to the data's `key`, the model with its first weights, the recipe and PyTorch's version.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = make()
        about = {
            "key": key,
            "model": [repr(model), fingerprint(_weights(model))],
            "recipe": asdict(recipe),
            "torch": torch.__version__,
        }
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

        def build() -> Arrays:
            torch.set_num_threads(1)  # the same bytes whatever the number of cores, and small steps gain nothing
            started = time.process_time()
            fit(model.train(), recipe)
            torch.set_num_threads(threads)
            return _weights(model) | {"training_seconds": np.array(time.process_time() - started)}

        kept = cached_arrays(f"weights-dense-{type(model).__name__.lower()}-{digest}", build)
    model.load_state_dict({name: torch.from_numpy(kept[name]) for name in model.state_dict()})
    return model.eval(), float(kept["training_seconds"])


def one_cycle(model: nn.Module, recipe: Recipe, steps: int) -> tuple[torch.optim.Optimizer, Schedule]:
    """Return AdamW and its schedule for epochs of so many steps."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=recipe.epochs * steps, pct_start=0.2, final_div_factor=1000
    )
    return optimizer, schedule


def take_step(loss: Tensor, optimizer: torch.optim.Optimizer, schedule: Schedule) -> None:
    """Move the weights against the gradient of a loss.

    Raises:
        FlyweightError: the loss is no longer a number.
    """
    if not torch.isfinite(loss):
        raise FlyweightError(f"The training loss is {loss.item()}; lower the recipe's rate.")
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    schedule.step()


def _weights(model: nn.Module) -> Arrays:
    return {name: value.detach().contiguous().numpy().copy() for name, value in model.state_dict().items()}
