"""Quantisation-aware recovery: weights and ranges learn, through the rounding, to say what the original says."""

from collections.abc import Iterator

import torch
from torch import nn

from flyweight.distillation.recover import Recovered, recover
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.quantization.fake_quantize import FakeQuantize
from flyweight.task.task import Task

#: Adam's rate for weights that are trained already, a tenth of what new ones get.
RATE = 3e-4


def learn(task: Task, model: TracedModel, *, epochs: float, seed: int = 0, lr: float = RATE) -> Recovered:
    """Return a copy of a quantised model recovered with the rounding in place; never worse on validation.

    Gradients pass the rounding unchanged (Bengio et al. 2013, arXiv:1308.3432); scales learn by LSQ's gradient (Esser
    et al. 2020, arXiv:1902.08153). Adam makes every step about `lr` long whatever the gradient, so each scale's rate is
    its own size: it moves by about `lr` of itself a step.

    Args:
        task: its original model is the teacher.
        model: left as it is.
        epochs: passes over the train split.

    Raises:
        InputError: nothing in the model can be trained.
    """
    ready = trace(model, {})
    for name, parameter in ready.body.named_parameters():
        parameter.requires_grad_(parameter.is_floating_point() and not _of_table(ready, name))
    for quantizer in quantizers(ready):
        quantizer.recovery_rate = float(quantizer.scale.detach().abs().mean())
    recovered = recover(task, ready, epochs=epochs, lr=lr, seed=seed, after_step=_settle)
    _settle(recovered.model)
    for quantizer in quantizers(recovered.model):
        quantizer.scale.requires_grad_(False)
    return recovered


def quantizers(model: nn.Module) -> Iterator[FakeQuantize]:
    """Yield the quantisers of a model."""
    return (module for module in model.modules() if isinstance(module, FakeQuantize))


def _settle(model: nn.Module) -> None:
    with torch.no_grad():
        for quantizer in quantizers(model):
            quantizer.settle()


def _of_table(model: TracedModel, name: str) -> bool:
    owner = model.body.get_submodule(name.rpartition(".")[0])
    return isinstance(owner, (nn.Embedding, nn.EmbeddingBag)) or getattr(type(owner), "traced_whole", False)
