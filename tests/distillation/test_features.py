"""Features inside the student are matched to the teacher's, mapped where widths differ."""

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.distillation.features import FeatureMatch, features_of
from flyweight.distillation.recover import recover
from flyweight.graph.trace import trace


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.conv(x.reshape(-1, 1, 8, 8)).relu().mean((2, 3)))


X = {"x": torch.rand(32, 64, generator=torch.Generator().manual_seed(0))}


def test_the_distance_to_oneself_is_zero() -> None:
    net = Net(4)
    match = FeatureMatch(net, net, {"conv": "conv"}, X)
    assert match.distance(features_of(net, ("conv",), X), match.wanted(X)).item() == 0


def test_the_distance_is_the_squared_error_in_units_of_the_variance() -> None:
    student, teacher = Net(4), Net(4)
    match = FeatureMatch(student, teacher, {"conv": "conv"}, X)
    images = X["x"].reshape(-1, 1, 8, 8)
    own, wanted = student.conv(images), teacher.conv(images)
    expected = ((own - wanted) ** 2).mean() / ((wanted - wanted.mean()) ** 2).mean()
    assert match.distance({"conv": own}, {"conv": wanted}).item() == pytest.approx(expected.item(), rel=1e-4)


def test_other_widths_are_mapped_by_a_learned_map_along_the_channels() -> None:
    student, teacher = Net(3), Net(8)
    match = FeatureMatch(student, teacher, {"conv": "conv"}, X)
    assert [tuple(one.shape) for one in match.parameters()] == [(8, 3)]
    own, made = features_of(student, ("conv",), X)["conv"], match.maps[0]
    by_hand = torch.einsum("rchw,oc->rohw", own, made.weight)
    expected = match.distance({"conv": own}, {"conv": by_hand}).item()
    assert expected == pytest.approx(0, abs=1e-10)


def test_a_traced_model_has_the_features_of_its_original() -> None:
    net = Net(4).eval()
    traced = trace(net, X)
    torch.testing.assert_close(features_of(traced, ("conv",), X)["conv"], features_of(net, ("conv",), X)["conv"])
    assert "forward" not in vars(traced)


def test_matching_features_brings_them_nearer(digits: fw.Task) -> None:
    """With features the student's inside comes closer to the teacher's than without."""

    class Thin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).relu())

    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = Thin()
    inputs = digits.validation[0][0]
    far = {}
    for names in ({}, {"first": "first"}):
        model = recover(digits, student, epochs=10, features=names).model
        match = FeatureMatch(model, digits.original, {"first": "first"}, inputs)
        far[len(names)] = match.distance(features_of(model, ("first",), inputs), match.wanted(inputs)).item()
    assert far[1] < 0.5 * far[0]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"cnov": "conv"}, "there is no module 'cnov'; the nearest are 'conv'"),
        ({"conv": "last"}, r"gives \(32, 4, 6, 6\) and the teacher's module \(32, 10\)"),
    ],
)
def test_names_and_shapes_that_do_not_fit_are_refused(names: dict[str, str], words: str) -> None:
    with pytest.raises(fw.InputError, match=words):
        FeatureMatch(Net(4), Net(4), names, X)
    with pytest.raises(fw.InputError, match=words):
        FeatureMatch(trace(Net(4).eval(), X), Net(4), names, X)
