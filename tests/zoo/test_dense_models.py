"""The models of the dense benchmarks against their formulas, and through torch.export."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim

from flyweight.cost.macs import count_macs
from flyweight.zoo.models.lenet import LeNet300100
from flyweight.zoo.models.resnet import ResidualBlock, ResNet
from flyweight.zoo.models.sasrec import SASRec, SelfAttention

HISTORY = torch.tensor([[0, 0, 3, 7], [1, 2, 3, 4], [0, 0, 0, 0]])


def small_sasrec():
    torch.manual_seed(0)
    model = SASRec(items=20, length=4, dim=8, hidden=16).eval()
    nn.init.normal_(model.items.weight)
    return model


def test_lenet_is_three_linear_layers_with_relu_between():
    torch.manual_seed(0)
    model, image = LeNet300100(), torch.rand(3, 1, 28, 28)
    first, second, third = (layer for layer in model.layers if isinstance(layer, nn.Linear))
    hidden = torch.relu(torch.relu(image.reshape(3, 784) @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    torch.testing.assert_close(model(image=image), hidden @ third.weight.T + third.bias)
    assert sum(weight.numel() for weight in model.parameters()) == 785 * 300 + 301 * 100 + 101 * 10


@pytest.mark.parametrize(("wide", "stride"), [(4, 1), (3, 2)])
def test_residual_block_without_its_branch_is_the_rectified_shortcut(wide, stride):
    block = ResidualBlock(wide, 4, stride).eval()
    nn.init.zeros_(block.norm2.weight)
    x = torch.randn(2, wide, 8, 8)
    torch.testing.assert_close(block(x), torch.relu(block.shortcut(x)))
    assert isinstance(block.shortcut, nn.Identity) == (wide == 4 and stride == 1)


def test_resnet_work_is_the_sum_over_its_filters():
    model = ResNet(channels=3, classes=43, widths=(32, 64), blocks=2, stem_stride=2)
    stem, at16, at8 = 3 * 32 * 9 * 256, 4 * 32 * 32 * 9 * 256, (32 * 64 * 9 + 3 * 64 * 64 * 9 + 32 * 64) * 64
    assert count_macs(model, {"image": torch.zeros(1, 3, 32, 32)}).total == stem + at16 + at8 + 64 * 43


def test_attention_is_that_of_pytorch():
    torch.manual_seed(0)
    own, theirs = SelfAttention(8, heads=2, dropout=0.0).eval(), nn.MultiheadAttention(8, 2, batch_first=True).eval()
    layers = (own.query, own.key, own.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        theirs.out_proj.load_state_dict(own.out.state_dict())
    x, seen = torch.randn(3, 4, 8), torch.ones(4, 4, dtype=torch.bool).tril()
    expected, _ = theirs(x, x, x, attn_mask=~seen)
    torch.testing.assert_close(own(x, seen.expand(3, 1, 4, 4)), expected)


def test_sasrec_scores_are_the_last_position_against_the_item_table():
    model = small_sasrec()
    torch.testing.assert_close(model(HISTORY), F.linear(model.encode(HISTORY)[:, 3], model.items.weight))


def test_sasrec_ignores_padding():
    model = small_sasrec()
    short = model(HISTORY[:1, 2:])
    torch.testing.assert_close(model(HISTORY[:1]), short)
    with torch.no_grad():
        padded = model.encode(HISTORY[:1])[:, 2:]
        model.items.weight[0] = 9.0
    torch.testing.assert_close(model.encode(HISTORY[:1])[:, 2:], padded)


def test_sasrec_does_not_look_ahead():
    model, later = small_sasrec(), HISTORY.clone()
    later[:, 3] = 11
    before, after = model.encode(HISTORY), model.encode(later)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3], before[:, 3])


def test_sasrec_of_an_empty_history_is_finite():
    assert bool(torch.isfinite(small_sasrec()(HISTORY[2:])).all())


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        (LeNet300100(), "image", torch.rand(3, 1, 28, 28)),
        (ResNet(widths=(8, 16)), "image", torch.rand(3, 3, 16, 16)),
        (small_sasrec(), "history", HISTORY),
    ],
    ids=["lenet", "resnet", "sasrec"],
)
def test_models_export_for_any_number_of_rows(model, name, value):
    model.eval()
    shapes = {name: {0: Dim("rows", min=1)}}
    exported = torch.export.export(model, (), {name: value}, dynamic_shapes=shapes).module()
    for rows in (1, 2, 3):
        torch.testing.assert_close(exported(**{name: value[:rows]}), model(**{name: value[:rows]}))
