"""What the two cases on Complete Journey share: the ranker by seed, a low-rank student, small nets from scratch."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.zoo import complete_journey
from flyweight.zoo.models.dcnv2 import DCNv2
from flyweight.zoo.training import Training, train, trained


def journey_task(seed: int = 0) -> fw.Task:
    """Return the default ranker, trained from another start for another seed; seed 0 is the zoo's own."""
    data = complete_journey.load()
    model = trained(lambda: DCNv2(data.vocabulary), data.train, Training(seed=seed), data.fingerprint)
    rows, validation, test = (split.with_keys("request_id") for split in (data.train, data.validation, data.test))
    return fw.Task(
        model=model,
        inputs=data.fields,
        train=rows,
        validation=validation,
        test=test,
        metric="auc",
        group="request_id",
        name="DCN-V2 on Complete Journey",
    )


class LowRankDCNv2(nn.Module):
    """DCN-V2 with cross layers of low rank, `W = U V` (Wang et al. 2020, arXiv 2008.13535, eq. 3), and a thinner MLP.

    It starts from a trained DCN-V2: U V is the matrix of that rank whose outputs are nearest over sample rows (the
    singular value decomposition of W L with L L' the second moments of the embeddings), and the MLP keeps the neurons
    that say most to the next layer.

    Args:
        teacher: whose tables are read, as they are.
        rank: of each cross layer.
        hidden: neurons of the MLP that stay.
        sample: embeddings side by side, (rows, fields * dim).
    """

    def __init__(self, teacher: DCNv2, rank: int, hidden: tuple[int, int], sample: Tensor) -> None:
        super().__init__()
        self.tables = teacher.tables
        width = sample.shape[1]
        moments = (sample.T.double() @ sample.double()) / len(sample)
        root = torch.linalg.cholesky(moments + 1e-4 * moments.diag().mean() * torch.eye(width)).float()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for layer in teacher.cross:
            down, up = _factors(layer, rank, root)
            self.down.append(down)
            self.up.append(up)
        first, second = teacher.mlp[0], teacher.mlp[2]
        alive = [torch.relu(first(sample))]
        alive.append(torch.relu(second(alive[0])))
        read = (second.weight, teacher.head.weight[:, width:])
        keep = [
            (values.square().mean(0) * weight.square().sum(0)).topk(count).indices.sort().values
            for values, weight, count in zip(alive, read, hidden, strict=True)
        ]
        every = torch.arange(width)
        self.mlp = nn.Sequential(_cut(first, keep[0], every), nn.ReLU(), _cut(second, keep[1], keep[0]), nn.ReLU())
        self.head = _cut(teacher.head, torch.arange(1), torch.cat([every, width + keep[1]]))

    def forward(self, **ids: Tensor) -> Tensor:
        """Return logits (rows,) for int64 ids (rows,) of each field."""
        x0 = torch.cat([table(ids[name]) for name, table in self.tables.items()], dim=-1)  # (rows, fields * dim)
        crossed = x0
        for down, up in zip(self.down, self.up, strict=True):
            crossed = x0 * up(down(crossed)) + crossed
        return self.head(torch.cat([crossed, self.mlp(x0)], dim=-1)).squeeze(-1)  # type: ignore[no-any-return]


def low_rank_student(task: fw.Task, rank: int, hidden: tuple[int, int]) -> LowRankDCNv2:
    """Return the student of a task's model, started on a batch of validation rows."""
    inputs, _, _ = next(task.batches("validation"))
    teacher = task.model
    assert isinstance(teacher, DCNv2)
    with torch.no_grad():
        sample = torch.cat([table(inputs[name]) for name, table in teacher.tables.items()], dim=-1)
        return LowRankDCNv2(teacher, rank, hidden, sample)


class ThinDCNv2(nn.Module):
    """DCN-V2 whose fields have embeddings of different widths: what is left of it when dimensions are pruned.

    Args:
        rows: the vocabulary size of each input.
        dims: width of its embedding.
        hidden: widths of the MLP's layers.
    """

    def __init__(self, rows: Mapping[str, int], dims: Mapping[str, int], hidden: tuple[int, int]) -> None:
        super().__init__()
        tables = {name: nn.Embedding(count, dims[name], sparse=True) for name, count in rows.items()}
        self.tables = nn.ModuleDict(tables)
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=1e-4)
            table.weight.data[0] = 0.0
        width = sum(dims.values())
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(width, hidden[0]), nn.ReLU(), nn.Linear(hidden[0], hidden[1]), nn.ReLU())
        self.head = nn.Linear(width + hidden[1], 1)

    forward = DCNv2.forward


def from_scratch(dims: Mapping[str, int], hidden: tuple[int, int], seed: int) -> nn.Module:
    """Return a net of these widths trained from scratch as the base was: one epoch, tables and all."""
    data = complete_journey.load()
    torch.manual_seed(seed)
    model = ThinDCNv2(data.vocabulary, dims, hidden)
    train(model, data.train, Training(seed=seed))
    return model


def widths_of(model: nn.Module) -> tuple[dict[str, int], tuple[int, int]]:
    """Return the width of each field's embedding and of the MLP's layers in a pruned (traced) ranker."""
    weights = {name.removeprefix("body."): value for name, value in model.named_parameters()}
    dims = {name.split(".")[1]: value.shape[1] for name, value in weights.items() if name.startswith("tables.")}
    return dims, (weights["mlp.0.weight"].shape[0], weights["mlp.2.weight"].shape[0])


def _factors(layer: nn.Linear, rank: int, root: Tensor) -> tuple[nn.Linear, nn.Linear]:
    left, sizes, right = torch.linalg.svd(layer.weight @ root)
    down = nn.Linear(layer.in_features, rank, bias=False)
    up = nn.Linear(rank, layer.out_features)
    down.weight.data = torch.linalg.solve_triangular(root, right[:rank], upper=False, left=False).contiguous()
    up.weight.data = (left[:, :rank] * sizes[:rank]).contiguous()
    up.bias.data = layer.bias.detach().clone()
    return down, up


def _cut(layer: nn.Linear, rows: Tensor, columns: Tensor) -> nn.Linear:
    thin = nn.Linear(len(columns), len(rows))
    thin.weight.data = layer.weight[rows][:, columns].detach().clone()
    thin.bias.data = layer.bias[rows].detach().clone()
    return thin
