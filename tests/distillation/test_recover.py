"""Recovery: what moves and what does not, what is kept, and what happens when it is stopped."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.distillation.rate import MIDDLE, RATES
from flyweight.distillation.recover import Recovered, recover
from flyweight.graph.trace import trace
from small_tasks import Ranker, seeded, trained_task


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("loss", ["soft", "score", "pairwise", "listwise"])
def test_a_damaged_model_regains_its_accuracy(digits: fw.Task, damaged: nn.Module, loss: Any) -> None:
    recovered = recover(digits, damaged, epochs=8, loss=loss)
    assert recovered.before.metric < 0.8
    assert recovered.after.metric > 0.92
    assert recovered.epochs == 8
    assert recovered.parameters == sum(one.numel() for one in damaged.parameters())


def test_models_given_are_left_as_they_are(digits: fw.Task, damaged: nn.Module) -> None:
    before = weights(damaged), weights(digits.model)
    recovered = recover(digits, damaged, epochs=0.5)
    assert same(weights(damaged), before[0])
    assert same(weights(digits.model), before[1])
    assert all(one.grad is None for one in [*damaged.parameters(), *digits.model.parameters()])
    assert not recovered.model.training


def test_a_traced_model_learns_as_its_original_does(digits: fw.Task, damaged: nn.Module) -> None:
    plain = recover(digits, damaged, epochs=3)
    traced = recover(digits, trace(damaged, digits.train[0][0]), epochs=3)
    # Dropout draws the same numbers, so all that differs is rounding.
    assert traced.after.metric == pytest.approx(plain.after.metric, abs=0.01)
    assert traced.after.loss == pytest.approx(plain.after.loss, rel=0.05)


def test_the_same_seed_gives_the_same_weights(digits: fw.Task, damaged: nn.Module) -> None:
    one, two, other = (recover(digits, damaged, epochs=2, seed=seed).model for seed in (3, 3, 4))
    assert same(weights(one), weights(two))
    assert not same(weights(one), weights(other))


def test_random_numbers_of_the_caller_are_left_alone(digits: fw.Task, damaged: nn.Module) -> None:
    state = torch.get_rng_state()
    recover(digits, damaged, epochs=0.2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("epochs", [0.1, 0.5, 3])
def test_it_is_never_worse_than_the_start(digits: fw.Task, epochs: float) -> None:
    recovered = recover(digits, digits.model, epochs=epochs, lr=1.0)  # a rate that wrecks any network
    assert recovered.after.metric >= recovered.before.metric
    assert min(one.metric for one in recovered.curve) < 0.5
    if recovered.after.epoch == 0:
        assert same(parameters(recovered.model), parameters(digits.model))


def test_a_loss_that_is_not_finite_stops_it_and_keeps_the_best(digits: fw.Task, damaged: nn.Module) -> None:
    recovered = recover(digits, damaged, epochs=3, lr=1e30)
    assert recovered.epochs < 1
    assert recovered.after.epoch == 0
    assert same(parameters(recovered.model), parameters(damaged))
    assert "not finite" in recovered.notes[0]
    assert "Lower lr=1e+30" in recovered.notes[0]


def test_a_gradient_that_is_not_finite_is_no_step(digits: fw.Task, damaged: nn.Module) -> None:
    class Edge(nn.Module):
        """sqrt at 0: the output is finite, its gradient is not."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.model(x)
            return out + (out - out).sqrt()

    edge = Edge(damaged)
    recovered = recover(digits, edge, epochs=0.5)
    assert "not finite" in recovered.notes[0]
    assert same(parameters(recovered.model), parameters(edge))


def test_it_stops_when_validation_gets_no_better(digits: fw.Task) -> None:
    wrong = [(inputs, (target + 1) % 10) for inputs, target in digits.train]
    misled = fw.Task(digits.model, digits.inputs, wrong, digits.validation, digits.test, metric="accuracy")
    recovered = recover(misled, digits.model, epochs=40, alpha=1.0)
    assert recovered.epochs < 40
    assert "no better on validation for the last 20 checks" in recovered.notes[-1]


def test_masks_are_put_on_after_each_step(digits: fw.Task, damaged: nn.Module) -> None:
    def mask(model: nn.Module) -> None:
        model.get_parameter("blocks.0.weight")[::2] = 0

    recovered = recover(digits, damaged, epochs=2, after_step=mask)
    kept = recovered.model.get_parameter("blocks.0.weight")
    assert not kept[::2].any()
    assert recovered.after.metric > recovered.before.metric


@pytest.mark.parametrize("form", ["plain", "traced"])
def test_stale_batch_statistics_are_read_anew_before_training(digits: fw.Task, form: str) -> None:
    model = copy.deepcopy(digits.model)
    model.get_buffer("norm.running_mean").add_(2.0)
    start = trace(model, digits.train[0][0]) if form == "traced" else model
    recovered = recover(digits, start, epochs=0.1, lr=1e-9)
    assert recovered.curve[0].metric < 0.9
    assert recovered.curve[1].epoch == 0
    assert recovered.curve[1].metric > 0.95


def test_batch_statistics_that_are_better_stay(digits: fw.Task) -> None:
    noise = [({"x": torch.randn_like(inputs["x"])}, target) for inputs, target in digits.train]
    task = fw.Task(digits.model, digits.inputs, noise, digits.validation, digits.test, metric="accuracy")
    recovered = recover(task, digits.model, epochs=0.2, lr=1e-9)
    assert recovered.curve[1].metric < recovered.curve[0].metric
    kept, own = (model.get_buffer("norm.running_mean") for model in (recovered.model, digits.model))
    assert torch.equal(kept, own)


def test_tables_are_frozen_and_shared_unless_asked() -> None:
    task = trained_task(seeded(Ranker), metric="logloss")
    student = copy.deepcopy(task.model)
    nn.init.normal_(student.mlp[0].weight)
    frozen, trained = recover(task, student, epochs=3, alpha=0.5), recover(task, student, epochs=3, tables=True)
    for name in ("user.weight", "item.weight"):
        assert frozen.model.get_parameter(name).data_ptr() == student.get_parameter(name).data_ptr()
        assert trained.model.get_parameter(name).data_ptr() != student.get_parameter(name).data_ptr()
        assert frozen.model.get_parameter(name).requires_grad
    assert frozen.after.loss < frozen.before.loss
    assert trained.parameters - frozen.parameters == student.user.weight.numel() + student.item.weight.numel()


def test_tables_with_sparse_gradients_learn() -> None:
    class Sparse(Ranker):
        def __init__(self) -> None:
            super().__init__()
            self.user = nn.Embedding(60, 8, sparse=True)

    task = trained_task(seeded(Ranker), metric="logloss")
    student = seeded(Sparse)
    recovered = recover(task, student, epochs=6, tables=True, lr=0.02)
    assert recovered.after.epoch > 0
    assert not torch.equal(recovered.model.get_parameter("user.weight"), student.user.weight)


def test_codebooks_are_trained_and_stay_half_precision_their_codes_as_they_were() -> None:
    task = trained_task(seeded(Ranker), metric="logloss")
    coded = fw.EncodeTables(ratio=8).apply(task).model
    with torch.no_grad():
        coded.get_submodule("mlp.0").weight *= 3
    before = weights(coded)
    recovered = recover(task, coded, epochs=5, lr=0.01)
    after = weights(recovered.model)
    assert {name: value.dtype for name, value in after.items()} == {name: one.dtype for name, one in before.items()}
    books = [name for name in before if name.endswith("codebook")]
    assert books
    assert recovered.after.epoch > 0
    assert any(not torch.equal(before[name], after[name]) for name in books)
    for name in before:
        if name.endswith((".codes", ".values", ".page_band")):
            assert torch.equal(before[name], after[name])
    # What was judged is what is handed on, half precision and all.
    from flyweight.distillation.standing import stand

    assert stand(task, recovered.model, recovered.after.epoch) == recovered.after


def test_frozen_weights_stay_frozen(digits: fw.Task, damaged: nn.Module) -> None:
    damaged.get_parameter("first.weight").requires_grad_(False)
    recovered = recover(digits, damaged, epochs=1)
    assert torch.equal(recovered.model.get_parameter("first.weight"), damaged.get_parameter("first.weight"))
    assert recovered.parameters == sum(one.numel() for one in damaged.parameters() if one.requires_grad)


def test_a_model_of_tables_alone_is_refused(digits: fw.Task) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.EmbeddingBag(64, 10, mode="sum")
            nn.init.zeros_(self.table.weight)  # the test's own start, whatever ran before it

        def forward(self, x: Tensor) -> Tensor:
            return self.table(torch.arange(64).expand(len(x), 64), per_sample_weights=x)

    with pytest.raises(fw.InputError, match=r"Nothing in the model can be trained.*tables=True"):
        recover(digits, Bag(), epochs=1)
    assert recover(digits, Bag(), epochs=4, lr=0.05, tables=True).after.metric > 0.8


class KilledError(Exception):
    pass


def killer(after: int, kind: type[BaseException]) -> Any:
    left = [after]

    def step(model: nn.Module) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise kind

    return step


@pytest.mark.parametrize("steps", [3, 30, 61])
def test_a_killed_training_goes_on_to_the_same_weights(
    digits: fw.Task, damaged: nn.Module, tmp_path: Path, steps: int
) -> None:
    file = tmp_path / "training"
    whole = recover(digits, damaged, epochs=4)
    with pytest.raises(KilledError):
        recover(digits, damaged, epochs=4, checkpoint=file, after_step=killer(steps, KilledError))
    resumed = recover(digits, damaged, epochs=4, checkpoint=file)
    assert same(weights(whole.model), weights(resumed.model))
    assert resumed.curve == whole.curve
    assert [path.name for path in tmp_path.iterdir()] == ["training"]


def test_a_finished_training_is_not_done_again(digits: fw.Task, damaged: nn.Module, tmp_path: Path) -> None:
    one = recover(digits, damaged, epochs=0.5, checkpoint=tmp_path / "training")
    again = recover(digits, damaged, epochs=0.5, checkpoint=tmp_path / "training", after_step=killer(1, KilledError))
    assert same(weights(one.model), weights(again.model))


def test_a_checkpoint_of_another_training_is_refused(digits: fw.Task, damaged: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "training"
    recover(digits, damaged, epochs=0.5, checkpoint=file)
    with pytest.raises(fw.InputError, match="is of another training"):
        recover(digits, damaged, epochs=0.5, lr=0.1, checkpoint=file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(fw.InputError, match="cannot be read"):
        recover(digits, damaged, epochs=0.5, checkpoint=file)


def test_an_interrupt_keeps_the_best_so_far(digits: fw.Task, damaged: nn.Module) -> None:
    recovered: Recovered = recover(digits, damaged, epochs=4, after_step=killer(40, KeyboardInterrupt))
    assert recovered.interrupted
    assert recovered.after.metric > recovered.before.metric
    assert 2 < recovered.epochs < 3


def test_batches_are_cut_into_steps_and_every_row_is_used(digits: fw.Task, damaged: nn.Module) -> None:
    steps = [0]

    def count(model: nn.Module) -> None:
        steps[0] += 1

    recover(digits, damaged, epochs=1, batch_rows=20, after_step=count)
    assert steps[0] == sum(-(-len(target) // 20) for _, target in digits.train)


def test_a_split_with_random_rows_is_learned_from_and_said() -> None:
    class Noisy(list[Any]):
        """Batches with noise of their own on each pass, as augmentation adds it."""

        def __init__(self, entries: list[Any]) -> None:
            super().__init__(entries)
            self.passes = 0

        def __iter__(self) -> Any:
            self.passes += 1
            for inputs, target in list.__iter__(self):
                yield {**inputs, "price": inputs["price"] + 0.01 * self.passes}, target

    base = trained_task(seeded(Ranker))
    splits: Any = {"train": Noisy(base.train), "validation": base.validation, "test": base.test}
    task = fw.Task(model=base.model, inputs=base.inputs, metric="logloss", **splits)
    student = copy.deepcopy(task.model)
    nn.init.normal_(student.mlp[0].weight)
    recovered = recover(task, student, epochs=2)
    assert recovered.after.loss < recovered.before.loss
    assert recovered.notes[-1].endswith(f"asked anew for {len(base.train)} batches")


def test_the_rate_that_stands_best_after_a_moment_is_chosen(digits: fw.Task, damaged: nn.Module) -> None:
    assert recover(digits, damaged, epochs=8).lr in RATES
    assert recover(digits, damaged, epochs=1).lr == MIDDLE  # too short to try
    steep = [({"x": inputs["x"] * 1e4}, target) for inputs, target in digits.train]
    task = fw.Task(digits.model, digits.inputs, steep, digits.validation, digits.test, metric="accuracy")
    # Inputs so large that any step is a leap: the smallest rate does the least harm.
    assert recover(task, digits.model, epochs=8, alpha=1.0).lr == min(RATES)
