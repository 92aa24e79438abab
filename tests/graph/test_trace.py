"""A traced model gives what the model gives, for any number of rows, and leaves the model alone."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import small_tasks
from flyweight.errors import ExportError
from flyweight.graph.trace import trace
from flyweight.graph.traced import module_of
from flyweight.tables.coded_embedding import CodedEmbedding
from flyweight.tables.encode_tables import EncodeTables
from flyweight.task.scores import evaluating


class Ranker(nn.Module):
    """Two lookups of one table, a bag, a constant, dropout, batch norm and the table's own weight read directly."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(50, 8)
        self.again = self.items
        self.tags = nn.EmbeddingBag(30, 8, mode="mean")
        self.scale = nn.Buffer(torch.full((8,), 0.5))
        self.net = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))

    def forward(self, item: Tensor, tags: Tensor) -> Tensor:
        seen = torch.cat([self.items(item) * self.scale, self.tags(tags)], 1)  # (rows, 16)
        return self.net(seen).squeeze(1) + (self.again(item) @ self.items.weight.T)[:, 0] * torch.tensor(2.0)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x).mean(1)


def inputs_of(model: nn.Module, rows: int) -> dict[str, Tensor]:
    if isinstance(model, Encoder):
        return {"x": torch.randn(rows, 5, 16)}
    return {"item": torch.randint(0, 50, (rows,)), "tags": torch.randint(0, 30, (rows, 4))}


@pytest.mark.parametrize("kind", [Ranker, Encoder])
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_trace_gives_the_models_outputs_for_any_number_of_rows(kind: type[nn.Module], rows: int) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    traced = trace(model, inputs_of(model, 6))
    inputs = inputs_of(model, rows)
    torch.testing.assert_close(traced(**inputs), model(**inputs))


def test_trace_keeps_names_and_tables_as_modules() -> None:
    traced = trace(Ranker(), inputs_of(Ranker(), 6))
    called = {str(node.target) for node in traced.body.graph.nodes if node.op == "call_module"}
    assert called == {"items", "tags"}
    assert {name for name, _ in traced.body.named_parameters()} == {
        *("items.weight", "tags.weight", "net.0.weight", "net.0.bias", "net.1.weight", "net.1.bias"),
        *("net.4.weight", "net.4.bias"),
    }
    linear = [node for node in traced.body.graph.nodes if node.target is torch.ops.aten.linear.default]
    assert [module_of(node) for node in linear] == ["net.0", "net.4"]


def test_training_a_trace_leaves_the_model_alone_and_shares_its_tables() -> None:
    model = Ranker().eval()
    before = copy.deepcopy(model.state_dict())
    traced = trace(model, inputs_of(model, 6))
    assert traced.body.items.weight is model.items.weight
    traced.train()
    dense = [tensor for name, tensor in traced.named_parameters() if "items" not in name and "tags" not in name]
    optimizer = torch.optim.SGD(dense, lr=1.0)
    traced(**inputs_of(model, 8)).sum().backward()
    optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not torch.equal(traced.body.net.get_submodule("1").running_mean, before["net.1.running_mean"])


def test_train_switches_dropout_and_batch_norm_and_eval_switches_back() -> None:
    model = Ranker().eval()
    traced, inputs = trace(model, inputs_of(model, 6)), inputs_of(model, 64)
    still = traced(**inputs)
    traced.train()
    assert not torch.equal(traced(**inputs), traced(**inputs))
    fresh = trace(model, inputs)
    assert torch.equal(fresh(**inputs), still)


def test_evaluating_gives_a_training_trace_its_dropout_back() -> None:
    model = Ranker()
    traced, inputs = trace(model, inputs_of(model, 6)).train(), inputs_of(model, 64)
    with evaluating(traced):
        assert torch.equal(traced(**inputs), traced(**inputs))
    assert not torch.equal(traced(**inputs), traced(**inputs))


def test_a_trace_of_a_trace_is_a_copy() -> None:
    model = Ranker().eval()
    inputs = inputs_of(model, 6)
    first = trace(model, inputs)
    second = trace(first, inputs)
    with torch.no_grad():
        second.body.net.get_submodule("0").weight.zero_()
    torch.testing.assert_close(first(**inputs), model(**inputs))


def test_coded_tables_stay_modules() -> None:
    task = small_tasks.trained_task(small_tasks.seeded(small_tasks.Ranker))
    model = EncodeTables(bits_per_row=2).apply(task).model
    inputs, _, _ = next(task.batches("validation"))
    traced = trace(model, inputs)
    assert any(isinstance(module, CodedEmbedding) for module in traced.modules())
    with evaluating(model):
        torch.testing.assert_close(traced(**inputs), model(**inputs))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


class Restless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


@pytest.mark.parametrize(
    ("model", "words"),
    [(Branching(), "return x + 1 if x.sum() > 0 else x"), (Restless(), "draws random numbers")],
)
def test_what_cannot_be_traced_is_named(model: nn.Module, words: str) -> None:
    with pytest.raises(ExportError) as caught:
        trace(model, {"x": torch.rand(4, 3)})
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", [Ranker, Encoder])
def test_a_pickled_graph_computes_the_same(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    traced = trace(model, inputs_of(model, 4))
    again = pickle.loads(pickle.dumps(traced))
    given = inputs_of(model, 9)
    assert torch.equal(again(**given), traced(**given))
    again.train()
    assert [one.training for one in again.modules()] == [True] * len(list(again.modules()))
