"""A pruned model with coded tables learns in two processes, as it does in one to the last bit."""

import torch

import flyweight as fw
from flyweight.distillation.training import Training
from flyweight.parallel.cluster.recovery import recover_together
from small_tasks import Ranker, seeded, trained_task


def test_a_pruned_ranker_learns_the_same_in_one_process_and_two(one_thread: None) -> None:
    task = trained_task(seeded(Ranker))
    coded = task.with_model(fw.EncodeTables(bits_per_row=4).apply(task).model)
    model = fw.Prune(ratio=0.5, saliency="magnitude").apply(coded).model
    one, two = (recover_together(task, model, Training(epochs=2, lr=0.01, shards=4), ranks=count) for count in (1, 2))
    assert one.after.metric > one.before.metric
    assert two.after.metric == one.after.metric
    weights = one.model.state_dict()
    before = dict(model.named_parameters())
    assert any(not torch.equal(value, before[name]) for name, value in one.model.named_parameters())
    for name, value in two.model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert one.model(**task.train[0][0]).shape == task.train[0][1].shape
