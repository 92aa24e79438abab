"""Models out of the ordinary, and legal: each is compressed, saved, loaded and scores as it did in PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import flyweight as fw
from flyweight.planning import measuring
from small_tasks import DIM, FIELDS, ITEMS, USERS, Columns, Ranker, Split, batches, seeded, splits, trained_task, world

Data = dict[str, Split]
LENGTH = 6


def narrowed(*names: str) -> Callable[[int, int], tuple[Columns, Tensor]]:
    def make(rows: int, seed: int) -> tuple[Columns, Tensor]:
        columns, clicked = world(rows, seed)
        return {name: columns[name] for name in names}, clicked

    return make


class Chance(Ranker):
    """Arguments in another order, probabilities (rows, 1), batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.BatchNorm1d(17), nn.Linear(17, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1), nn.Sigmoid()
        )

    def forward(self, price: Tensor, item_id: Tensor, user_id: Tensor) -> Tensor:
        return super().forward(user_id, item_id, price).unsqueeze(1)


def chance() -> fw.Task:
    data = {
        name: [(inputs, target.unsqueeze(1)) for inputs, target in split] for name, split in splits().items()
    }
    return trained_task(seeded(Chance), data, loss=F.binary_cross_entropy)


class History(nn.Module):
    """A history (rows, length) with a mask, mean-pooled, over the item's own table; a dot product at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, DIM), nn.Embedding(ITEMS, DIM, padding_idx=0)

    def forward(self, user_id: Tensor, item_id: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        seen = (self.item(history) * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        return ((self.user(user_id) + seen) * self.item(item_id)).sum(1)


def history() -> fw.Task:
    def make(rows: int, seed: int) -> tuple[Columns, Tensor]:
        columns, clicked = world(rows, seed)
        drawn = torch.Generator().manual_seed(seed)
        mask = torch.arange(LENGTH) < torch.randint(0, LENGTH + 1, (rows, 1), generator=drawn)
        seen = torch.randint(1, ITEMS, (rows, LENGTH), generator=drawn) * mask
        del columns["price"]
        return {**columns, "history": seen.int(), "mask": mask.float()}, clicked

    fields = {name: FIELDS[name] for name in ("user_id", "item_id")}
    fields |= {"history": fw.Field(role="request", rows=ITEMS), "mask": fw.Field(role="request")}
    return trained_task(seeded(History), splits(make), inputs=fields)


class Bag(nn.Module):
    """Flat ids with offsets: some bags are empty."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.items = nn.Embedding(USERS, DIM), nn.EmbeddingBag(ITEMS, DIM, mode="mean", padding_idx=0)
        self.last = nn.Linear(2 * DIM, 1)

    def forward(self, user_id: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
        return self.last(torch.cat([self.user(user_id), self.items(items, offsets)], 1)).squeeze(1)


def bag() -> fw.Task:
    def filled(columns: Columns, clicked: Tensor) -> tuple[Columns, Tensor]:
        drawn = torch.Generator().manual_seed(int(columns["item_id"].sum()))
        sizes = torch.randint(0, 4, (len(clicked),), generator=drawn)
        items = torch.randint(0, ITEMS, (int(sizes.sum()),), generator=drawn)
        return {"user_id": columns["user_id"], "items": items, "offsets": sizes.cumsum(0) - sizes}, clicked

    data = {name: [filled(*batch) for batch in split] for name, split in splits().items()}
    fields = {"user_id": FIELDS["user_id"], "items": fw.Field(rows=ITEMS), "offsets": fw.Field()}
    return trained_task(seeded(Bag), data, inputs=fields)


class Classes(nn.Module):
    """Three classes, from one table that two fields share and a third reads again."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(ITEMS, DIM)
        self.last = nn.Linear(2 * DIM, 3)

    def forward(self, user_id: Tensor, item_id: Tensor) -> Tensor:
        return self.last(torch.cat([self.shared(user_id) * self.shared(item_id), self.shared(item_id)], 1))


def classes() -> fw.Task:
    def make(rows: int, seed: int) -> tuple[Columns, Tensor]:
        columns, clicked = narrowed("user_id", "item_id")(rows, seed)
        return columns, (clicked + (columns["item_id"] % 7 == 0)).long()

    fields = {"user_id": fw.Field(rows=USERS), "item_id": fw.Field(rows=ITEMS)}
    return trained_task(seeded(Classes), splits(make), loss=F.cross_entropy, inputs=fields, metric="accuracy")


class Retrieval(nn.Module):
    """Two towers: a score for every item there is, looked up all at once."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, DIM), nn.Embedding(ITEMS, DIM)

    def forward(self, user_id: Tensor) -> Tensor:
        return self.user(user_id) @ self.item(torch.arange(ITEMS)).T


def retrieval() -> fw.Task:
    def make(rows: int, seed: int) -> tuple[Columns, Tensor]:
        columns, _ = world(rows, seed)
        return {"user_id": columns["user_id"]}, columns["item_id"]

    fields = {"user_id": FIELDS["user_id"]}
    return trained_task(seeded(Retrieval), splits(make), loss=F.cross_entropy, inputs=fields, metric="recall@20")


class Numbers(nn.Module):
    """Two numbers a row."""

    def __init__(self) -> None:
        super().__init__()
        self.item, self.last = nn.Embedding(ITEMS, DIM), nn.Linear(DIM, 2)

    def forward(self, item_id: Tensor) -> Tensor:
        return self.last(self.item(item_id))


def numbers() -> fw.Task:
    def make(rows: int, seed: int) -> tuple[Columns, Tensor]:
        columns, clicked = narrowed("item_id")(rows, seed)
        return columns, torch.stack([clicked, columns["item_id"] / ITEMS], 1)

    return trained_task(
        seeded(Numbers), splits(make), loss=F.mse_loss, inputs={"item_id": FIELDS["item_id"]}, metric="rmse"
    )


class Rows(Dataset[Any]):
    def __init__(self, rows: int, seed: int) -> None:
        self.columns, self.target = world(rows, seed)

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, row: int) -> Any:
        return {name: values[row] for name, values in self.columns.items()}, self.target[row]


def loaders() -> fw.Task:
    """Shuffling DataLoaders for all splits, requests as an extra key, a metric by request."""

    class Grouped(Rows):
        def __getitem__(self, row: int) -> Any:
            inputs, target = super().__getitem__(row)
            return {**inputs, "visit": row // 15}, target

    model = trained_task(seeded(Ranker)).model
    sizes = (3_000, 1_200, 900)
    train, validation, test = (
        DataLoader(Grouped(rows, seed), batch_size=300, shuffle=True) for seed, rows in enumerate(sizes)
    )
    return fw.Task(model, FIELDS, train, validation, test, metric="ndcg@10", group="visit")


def halves() -> fw.Task:
    task = trained_task(seeded(Ranker))
    task.model.bfloat16()

    def half(split: Any) -> Split:
        return [({**inputs, "price": inputs["price"].bfloat16()}, target) for inputs, target in split]

    return fw.Task(task.model, FIELDS, half(task.train), half(task.validation), half(task.test))


ODD = [chance, history, bag, classes, retrieval, numbers, loaders, halves]


@pytest.fixture(autouse=True)
def _no_fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "resident_growth", lambda *_: None)


@pytest.mark.parametrize("make", ODD, ids=[make.__name__ for make in ODD])
def test_odd_model_is_compressed_and_served(make: Callable[[], fw.Task], tmp_path: Path) -> None:
    task = make()
    result = fw.compress(task, steps=[fw.EncodeTables(ratio=4)])
    assert result.after.table_bytes * 4 <= result.before.table_bytes
    assert np.isfinite([result.drop.low, result.drop.value, result.drop.high]).all()
    bundle = result.save(tmp_path / "odd.fly")
    assert fw.verify(bundle).ok
    inputs, target, _ = next(task.batches("test"))
    inputs = {name: values.float() if values.dtype == torch.bfloat16 else values for name, values in inputs.items()}
    with fw.load(bundle) as ranker:
        got = ranker.predict({name: values.numpy() for name, values in inputs.items()})
    with torch.no_grad():
        expected = result.model.eval()(**inputs)
    assert len(got) == len(target)
    np.testing.assert_allclose(got, expected.numpy().reshape(got.shape), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("make", ODD, ids=[make.__name__ for make in ODD])
def test_odd_model_is_searched(make: Callable[[], fw.Task], tmp_path: Path) -> None:
    result = fw.compress(make(), fw.Budget(max_drop=0.5), max_trials=6, run=tmp_path / "run")
    search = result.data.search
    assert search is not None
    failed = {trial.words: trial.reason for trial in search.trials if trial.state == "failed"}
    if make is bag:  # as it is, PyTorch exports it in an operator that no bundle may hold
        assert "ScatterND" in failed.pop("rewriting alone")
    assert failed == {}
    assert result.after.bytes <= result.before.bytes
    assert fw.verify(result.save(tmp_path / "odd.fly")).ok


def test_history_of_one_user_is_scored_with_many_candidates(tmp_path: Path) -> None:
    task = history()
    result = fw.compress(task, steps=[fw.EncodeTables(ratio=4)])
    seen, mask = np.array([5, 9, 0, 0, 0, 0]), np.array([1.0, 1, 0, 0, 0, 0])
    with fw.load(result.save(tmp_path / "history.fly")) as ranker:
        got = ranker.score(
            request={"user_id": 3, "history": seen, "mask": mask}, candidates={"item_id": np.arange(ITEMS)}
        )
    with torch.no_grad():
        expected = result.model(
            user_id=torch.full((ITEMS,), 3),
            item_id=torch.arange(ITEMS),
            history=torch.from_numpy(seen).expand(ITEMS, LENGTH),
            mask=torch.from_numpy(mask).float().expand(ITEMS, LENGTH),
        )
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_halves_are_widened_and_said_so() -> None:
    result = fw.compress(halves(), steps=[fw.EncodeTables(ratio=4)])
    assert [change.step for change in result.changes] == ["widen_weights", "encode_tables"]
    assert "weights of bfloat16 made float32" in " ".join(result.data.changes)
    assert {parameter.dtype for parameter in result.model.mlp.parameters()} == {torch.float32}


def test_model_without_tables_is_searched_for_what_its_layers_give() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(1, 1)

        def forward(self, price: Tensor) -> Tensor:
            return self.last(price.unsqueeze(1)).squeeze(1)

    task = trained_task(Dense(), splits(narrowed("price")), inputs={"price": fw.Field()})
    result = fw.compress(task, max_trials=2)
    assert result.before.table_bytes == result.after.table_bytes == 0
    assert result.data.search is not None
    assert [trial.words for trial in result.data.search.trials] == ["rewriting alone", "int8"]
    assert result.drop.value <= 0.001


def test_model_that_cannot_be_exported_names_operator_and_module() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if float(x.sum()) > 0 else x

    class Branching(Ranker):
        def __init__(self) -> None:
            super().__init__()
            self.branch = Branch()

        def forward(self, **inputs: Tensor) -> Tensor:
            return self.branch(super().forward(**inputs))

    data = batches(*world(600, 1))
    task = fw.Task(seeded(Branching), FIELDS, data, data, data)
    with pytest.raises(fw.ExportError) as error:
        fw.compress(task, steps=[fw.EncodeTables(ratio=4)])
    assert "branch (Branch)" in str(error.value)
    assert "item" in str(error.value)
    assert "\n" not in str(error.value)
