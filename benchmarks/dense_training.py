"""Training of the dense benchmarks' base models: one cycle of AdamW, and weights kept in the cache."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_data import HISTORY, Images, distorted
from flyweight.errors import FlyweightError
from flyweight.zoo.cache import Arrays, cached_arrays, fingerprint
from flyweight.zoo.sasrec import SASRec

Watch = Callable[[int, nn.Module], None]


@dataclass(frozen=True)
class Recipe:
    """How a base model is trained, on one thread.

    Args:
        epochs: passes over the training rows.
        rate: the highest learning rate, reached after a fifth of the steps; it ends at zero (one cycle, Smith 2018).
        decay: AdamW's weight decay, of matrices and filters only.
        batch: images or histories of a step.
        smoothing: of the labels.
        negatives: wrong items drawn for a step, shared by all of its positions (SASRec only).
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


def trained(
    make: Callable[[], nn.Module], fit: Callable[[nn.Module, Recipe], None], recipe: Recipe, key: str
) -> tuple[nn.Module, float]:
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


def fit_images(model: nn.Module, data: Images, recipe: Recipe, watch: Watch | None = None) -> None:
    """Train a classifier in place, every image distorted anew in every epoch.

    Raises:
        FlyweightError: the loss is no longer a number.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    model.to(memory_format=torch.channels_last)  # a third faster on CPUs
    optimizer, schedule = _optimizer(model, recipe, data.rows // recipe.batch)
    for epoch in range(recipe.epochs):
        for rows in torch.randperm(data.rows, generator=generator).split(recipe.batch)[: data.rows // recipe.batch]:
            images = distorted(data.pixels[rows].float() / 255, data.distortion, generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                outputs = model(image=images.contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(outputs.float(), data.labels[rows], label_smoothing=recipe.smoothing)
            _step(loss, optimizer, schedule)
        if watch:
            watch(epoch, model)
    model.to(memory_format=torch.contiguous_format)


def fit_histories(
    model: SASRec, sequences: list[NDArray[np.int32]], recipe: Recipe, watch: Watch | None = None
) -> None:
    """Train SASRec in place: at every position of a sequence, the next item against wrong ones drawn at random.

    The loss is the softmax over the right item and the drawn ones, whose logits are raised by log(items / drawn) so
    that their sum is an unbiased estimate of the sum over all items (Bengio and Senecal 2008). Id 0 is always among the
    wrong ones. Sequences of like length share a step, so that little of it is padding.

    Raises:
        FlyweightError: the loss is no longer a number.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    sequences = [items[-HISTORY - 1 :] for items in sequences if len(items) > 1]
    optimizer, schedule = _optimizer(model, recipe, -(-len(sequences) // recipe.batch))
    for epoch in range(recipe.epochs):
        for rows in _like_lengths(sequences, recipe.batch, generator):
            loss = _next_item_loss(model, padded([sequences[i] for i in rows]), recipe, generator)
            _step(loss, optimizer, schedule)
        if watch:
            watch(epoch, model)


def padded(sequences: list[NDArray[np.int32]]) -> Tensor:
    """Return ids (rows, longest), int64, each sequence at the end of its row and 0 before it."""
    longest = max(map(len, sequences))
    rows = np.zeros((len(sequences), longest), dtype=np.int64)
    for row, items in zip(rows, sequences, strict=True):
        row[longest - len(items) :] = items
    return torch.from_numpy(rows)


def _next_item_loss(model: SASRec, ids: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    history, target = ids[:, :-1], ids[:, 1:]
    known = history != 0
    target, items = target[known], model.items.num_embeddings  # (positions,)
    drawn = 1 + torch.randperm(items - 1, generator=generator)[: recipe.negatives]
    drawn = torch.cat([torch.zeros(1, dtype=torch.long), drawn])
    place = torch.full((items,), -1).index_put((drawn,), torch.arange(len(drawn)))[target]  # of the right one, or -1
    hit = torch.nonzero(place >= 0).squeeze(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        position = model.encode(history)[known]  # (positions, dim)
        wrong = F.linear(position, model.items(drawn)).float()  # (positions, drawn)
        right = (position * model.items(target)).sum(1).float()
    wrong = wrong.index_put((hit, place[hit]), torch.tensor(-torch.inf))  # drawn by accident
    others = torch.logsumexp(wrong, 1) + math.log(items / len(drawn))
    return F.softplus(others - right).mean()


def _like_lengths(
    sequences: list[NDArray[np.int32]], size: int, generator: torch.Generator
) -> Iterator[list[int]]:
    """Yield batches of sequence numbers in random order, each of nearly one length."""
    lengths = torch.tensor([len(items) for items in sequences])
    batches = torch.argsort(lengths + torch.rand(len(lengths), generator=generator)).split(size)
    for number in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[number].tolist()


def _optimizer(
    model: nn.Module, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=recipe.epochs * steps, pct_start=0.2, final_div_factor=1000
    )
    return optimizer, schedule


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    if not torch.isfinite(loss):
        raise FlyweightError(f"The training loss is {loss.item()}; lower the recipe's rate.")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()


def _weights(model: nn.Module) -> Arrays:
    return {name: value.detach().contiguous().numpy().copy() for name, value in model.state_dict().items()}
