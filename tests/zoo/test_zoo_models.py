"""The zoo's models against their formulas, and through torch.export."""

import pytest
import torch
from torch import nn

from flyweight.zoo.models.dcnv2 import DCNv2
from flyweight.zoo.models.two_tower import TwoTower
from flyweight.zoo.references import LogisticRegression

ROWS = {"user": 10, "item": 30}
IDS = {"user": torch.tensor([1, 2, 0]), "item": torch.tensor([29, 5, 0])}


def test_dcnv2_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    model = DCNv2(ROWS, dim=4, cross_layers=2, hidden=(8,), init_std=1.0)
    x0 = torch.cat([model.tables[name].weight[ids] for name, ids in IDS.items()], dim=1)
    x1 = x0 * (x0 @ model.cross[0].weight.T + model.cross[0].bias) + x0
    x2 = x0 * (x1 @ model.cross[1].weight.T + model.cross[1].bias) + x1
    deep = torch.relu(x0 @ model.mlp[0].weight.T + model.mlp[0].bias)
    expected = (torch.cat([x2, deep], 1) @ model.head.weight.T + model.head.bias)[:, 0]
    torch.testing.assert_close(model(**IDS), expected)


def test_two_tower_is_a_dot_product_and_ignores_padding():
    torch.manual_seed(0)
    model = TwoTower(users=10, items=30, dim=4, init_std=1.0)
    history = torch.tensor([[3, 4, 0], [5, 0, 0], [0, 0, 0]])
    bags = torch.stack(
        [model.history.weight[3:5].mean(0), model.history.weight[5], torch.zeros(4)]  # ids 3 and 4, id 5, none
    )
    user = model.user_tower(torch.cat([model.users.weight[IDS["user"]], bags], 1))
    item = model.item_tower(model.items.weight[IDS["item"]])
    found = model(user_id=IDS["user"], history=history, item_id=IDS["item"])
    torch.testing.assert_close(found, (user * item).sum(1))


def test_logistic_regression_is_a_sum_of_weights():
    model = LogisticRegression(ROWS)
    nn.init.normal_(model.tables["user"].weight)
    nn.init.constant_(model.bias, 0.5)
    torch.testing.assert_close(model(**IDS), model.tables["user"].weight[IDS["user"], 0] + 0.5)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (DCNv2(ROWS, dim=4), IDS),
        (LogisticRegression(ROWS), IDS),
        (
            TwoTower(10, 30, dim=4),
            {"user_id": IDS["user"], "history": torch.tensor([[3, 4], [5, 0], [0, 0]]), "item_id": IDS["item"]},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_models_export(model, inputs):
    exported = torch.export.export(model.eval(), (), inputs)
    torch.testing.assert_close(exported.module()(**inputs), model(**inputs))
