"""What a student learns from its teacher's outputs: each loss is a mean, at its least, 0, where both say the same.

All work on *lists*: a list is a row of columns, or the rows of one group, or the batch.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.errors import InputError
from flyweight.task.loss import OutputKind

LossName = Literal["soft", "score", "pairwise", "listwise"]
#: `loss(student, teacher, list of each entry or None, temperature)`, outputs flat: (entries,).
Ranking = Callable[[Tensor, Tensor, Tensor | None, float], Tensor]
#: How many others each entry is compared with.
PARTNERS = 8


def soft_columns(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return `T^2 KL(softmax(teacher / T) || softmax(student / T))` in nats, the mean over rows, for (rows, columns).

    Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015 (arXiv 1503.02531), section 2: the
    factor T^2 keeps gradients of one size when T changes.

    Example:
        >>> soft_columns(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]])).item()
        0.0
    """
    wanted, given = F.log_softmax(teacher / temperature, 1), F.log_softmax(student / temperature, 1)
    return temperature**2 * F.kl_div(given, wanted, reduction="batchmean", log_target=True)


def soft_logit(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the same of one logit a row: two columns, of which one is always 0; (rows,).

    Example:
        >>> round(soft_logit(torch.tensor([0.0]), torch.tensor([2.0])).item(), 4)
        0.3277
    """
    wanted = torch.sigmoid(teacher / temperature)
    cross = F.binary_cross_entropy_with_logits(student / temperature, wanted, reduction="none")
    own = F.binary_cross_entropy_with_logits(teacher / temperature, wanted, reduction="none")
    return temperature**2 * (cross - own).mean()


def score_regression(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared error of the outputs, any shape.

    Ba, Caruana, "Do deep nets really need to be deep?", 2014 (arXiv 1312.6184), eq. 1: regression on logits.
    """
    return F.mse_loss(student, teacher)


def pairwise(
    student: Tensor, teacher: Tensor, lists: Tensor | None = None, temperature: float = 1.0, partners: int = PARTNERS
) -> Tensor:
    """Return the loss of the order of pairs: `soft_logit` of the differences of scores, the mean over pairs of a list.

    RankNet (Burges et al. 2005, eq. 3) with the teacher's chance that the one is above the other; as the temperature
    goes to 0 it is the logistic loss of the teacher's order. Each entry is compared with up to `partners` others of
    its list, drawn anew on each call from PyTorch's random numbers; no pair gives 0.

    Args:
        student, teacher: scores, (entries,).
        lists: whole numbers that say which list each entry is in, (entries,); None takes all as one.
    """
    first, second = draw_pairs(lists, len(student), partners, student.device)
    if not len(first):
        return student.sum() * 0.0
    return soft_logit(student[first] - student[second], teacher[first] - teacher[second], temperature)


def listwise(student: Tensor, teacher: Tensor, lists: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Return the softmax divergence of each list's scores, times T^2, the mean over lists of two or more.

    ListNet (Cao et al. 2007, "Learning to rank: from pairwise approach to listwise approach", eq. 6, top one), less
    the teacher's own entropy.

    Args:
        student, teacher: scores, (entries,).
        lists: whole numbers that say which list each entry is in, (entries,); None takes all as one.
    """
    if lists is None:
        return soft_columns(student.unsqueeze(0), teacher.unsqueeze(0), temperature)
    place, length = _places(lists)
    wanted = _log_softmax(teacher / temperature, place, len(length))
    given = _log_softmax(student / temperature, place, len(length))
    several = (length > 1).sum().clamp_min(1)
    return temperature**2 * (wanted.exp() * (wanted - given)).sum() / several


def draw_pairs(lists: Tensor | None, entries: int, partners: int, device: Any = None) -> tuple[Tensor, Tensor]:
    """Return places (pairs,) twice: each entry beside up to `partners` others of its list, no pair twice."""
    order = torch.randperm(entries).to(device)
    if lists is not None:
        order = order[torch.argsort(lists[order], stable=True)]  # lists one after the other, each in random order
    pairs = [(order[:-shift], order[shift:]) for shift in range(1, min(partners, entries - 1) + 1)]
    if not pairs:
        return order[:0], order[:0]
    first, second = (torch.cat(side) for side in zip(*pairs, strict=True))
    if lists is None:
        return first, second
    together = lists[first] == lists[second]
    return first[together], second[together]


def outputs_loss(name: LossName, output: OutputKind, temperature: float) -> Callable[..., Tensor]:
    """Return `loss(student, teacher, groups or None) -> scalar` on outputs as a model of this kind gives them.

    Probabilities are compared as logits; columns are a list a row, other outputs a list a group or the batch.

    Raises:
        InputError: soft targets of a model whose outputs are no scores of a class.
    """
    check_loss(name, output)

    def loss(student: Tensor, teacher: Tensor, groups: Tensor | None = None) -> Tensor:
        if output == "probability":
            student, teacher = torch.logit(student, eps=1e-6), torch.logit(teacher, eps=1e-6)
        if name == "score":
            return score_regression(student, teacher)
        if name == "soft":
            return (soft_columns if output == "columns" else soft_logit)(student, teacher, temperature)
        if output == "columns" and name == "listwise":
            return soft_columns(student, teacher, temperature)
        if student.ndim > 1:
            groups = torch.arange(len(student), device=student.device).repeat_interleave(student[0].numel())
        ranking: Ranking = pairwise if name == "pairwise" else listwise
        return ranking(student.flatten(), teacher.flatten(), groups, temperature)

    return loss


def check_loss(name: LossName, output: OutputKind) -> None:
    """Refuse soft targets where outputs are numbers: they have no probabilities.

    Raises:
        InputError: says which losses fit.
    """
    if name == "soft" and output == "value":
        raise InputError(
            "Loss 'soft' compares probabilities, and this task's outputs are plain numbers (output='value'); "
            "use 'score', 'pairwise' or 'listwise'."
        )


def default_distill_loss(output: OutputKind) -> LossName:
    """Return the loss that goes with a kind of output: soft targets for scores of classes, else regression."""
    return "score" if output == "value" else "soft"


def _places(lists: Tensor) -> tuple[Tensor, Tensor]:
    """Return the list of each entry as 0, 1, ... and the length of each list."""
    _, place, length = torch.unique(lists, return_inverse=True, return_counts=True)
    return place, length


def _log_softmax(scores: Tensor, place: Tensor, lists: int) -> Tensor:
    """Return the log-softmax of each entry within its list, (entries,)."""
    top = torch.full((lists,), -torch.inf, dtype=scores.dtype, device=scores.device)
    top = top.scatter_reduce(0, place, scores.detach(), "amax")
    shifted = scores - top[place]
    total = torch.zeros(lists, dtype=scores.dtype, device=scores.device).index_add(0, place, shifted.exp())
    return shifted - total[place].log()
