"""The zoo's other rankers on Complete Journey: the same rows, the same certificate, another model."""

from collections.abc import Callable

from torch import nn

from flyweight.task.task import Task
from flyweight.zoo import complete_journey as journey
from flyweight.zoo import journey_history
from flyweight.zoo.dataset import Dataset
from flyweight.zoo.models.deepfm import DeepFM
from flyweight.zoo.models.din import DIN
from flyweight.zoo.models.dlrm import DLRM
from flyweight.zoo.models.mlp import MLPRanker
from flyweight.zoo.progress import Progress, silent
from flyweight.zoo.training import Training, trained

#: One pass. More is worse: a second pass learns by heart what seldom rows did in the first.
TRAINING = Training()


def mlp(progress: Progress = silent) -> Task:
    """Return a multi-layer perceptron of 512 and 256 neurons over the 25 fields."""
    data = journey.load(progress)
    return _task("MLP on Complete Journey", data, lambda: MLPRanker(data.vocabulary), TRAINING, progress)


def dlrm(progress: Progress = silent) -> Task:
    """Return DLRM over the 25 fields."""
    data = journey.load(progress)
    return _task("DLRM on Complete Journey", data, lambda: DLRM(data.vocabulary), TRAINING, progress)


def deepfm(progress: Progress = silent) -> Task:
    """Return DeepFM over the 25 fields."""
    data = journey.load(progress)
    return _task("DeepFM on Complete Journey", data, lambda: DeepFM(data.vocabulary), TRAINING, progress)


def din(progress: Progress = silent) -> Task:
    """Return DIN over the 20 plain fields and the household's last hundred purchases of earlier weeks."""
    data = journey_history.load(progress)
    rows = {name: count for name, count in data.vocabulary.items() if name != "history"}
    return _task("DIN on Complete Journey", data, lambda: DIN(rows, item="product_id"), TRAINING, progress)


def _task(
    name: str, data: Dataset, make: Callable[[], nn.Module], training: Training, progress: Progress
) -> Task:
    model = trained(make, data.train, training, data.fingerprint, progress)
    train, validation, test = (split.with_keys("request_id") for split in (data.train, data.validation, data.test))
    return Task(
        model=model,
        inputs=data.fields,
        train=train,
        validation=validation,
        test=test,
        metric="auc",
        group="request_id",
        name=name,
    )
