"""Flyweight: a trained model and a budget in, the smallest, fastest model that provably stays inside it out.

The names are loaded on first use, so that serving a bundle (`fw.load`) never imports PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.bundle.add_vocabularies import add_vocabularies as add_vocabularies
    from flyweight.bundle.load import load as load
    from flyweight.bundle.shards.shard import shard as shard
    from flyweight.bundle.verify import verify as verify
    from flyweight.distillation.distill import Distill as Distill
    from flyweight.distillation.student import Thinner as Thinner
    from flyweight.errors import BundleError as BundleError
    from flyweight.errors import EngineError as EngineError
    from flyweight.errors import ExportError as ExportError
    from flyweight.errors import FlyweightError as FlyweightError
    from flyweight.errors import InputError as InputError
    from flyweight.errors import ShardError as ShardError
    from flyweight.graph.from_onnx import from_onnx as from_onnx
    from flyweight.parallel.partition import partition as partition
    from flyweight.planning.budget import Budget as Budget
    from flyweight.planning.compress import compress as compress
    from flyweight.planning.profile import profile as profile
    from flyweight.planning.recipe import Recipe as Recipe
    from flyweight.planning.recipe import read_recipe as read_recipe
    from flyweight.pruning.drop_fields import DropFields as DropFields
    from flyweight.pruning.factorize import Factorize as Factorize
    from flyweight.pruning.prune import Prune as Prune
    from flyweight.pruning.share_weights import ShareWeights as ShareWeights
    from flyweight.quality.intervals import non_inferior as non_inferior
    from flyweight.quantization.quantize import Quantize as Quantize
    from flyweight.tables.coded_teacher import CodedTeacher as CodedTeacher
    from flyweight.tables.encode_tables import EncodeTables as EncodeTables
    from flyweight.task.change import Change as Change
    from flyweight.task.estimate import Estimate as Estimate
    from flyweight.task.field import Field as Field
    from flyweight.task.measurement import Measurement as Measurement
    from flyweight.task.metric import Metric as Metric
    from flyweight.task.step import Step as Step
    from flyweight.task.task import Task as Task

#: Every public name and the module it lives in.
_HOMES: dict[str, str] = {
    "Budget": "flyweight.planning.budget",
    "BundleError": "flyweight.errors",
    "Change": "flyweight.task.change",
    "CodedTeacher": "flyweight.tables.coded_teacher",
    "Distill": "flyweight.distillation.distill",
    "DropFields": "flyweight.pruning.drop_fields",
    "EncodeTables": "flyweight.tables.encode_tables",
    "EngineError": "flyweight.errors",
    "Estimate": "flyweight.task.estimate",
    "ExportError": "flyweight.errors",
    "Factorize": "flyweight.pruning.factorize",
    "Field": "flyweight.task.field",
    "FlyweightError": "flyweight.errors",
    "InputError": "flyweight.errors",
    "Measurement": "flyweight.task.measurement",
    "Metric": "flyweight.task.metric",
    "Prune": "flyweight.pruning.prune",
    "Quantize": "flyweight.quantization.quantize",
    "Recipe": "flyweight.planning.recipe",
    "ShardError": "flyweight.errors",
    "ShareWeights": "flyweight.pruning.share_weights",
    "Step": "flyweight.task.step",
    "Task": "flyweight.task.task",
    "Thinner": "flyweight.distillation.student",
    "add_vocabularies": "flyweight.bundle.add_vocabularies",
    "compress": "flyweight.planning.compress",
    "from_onnx": "flyweight.graph.from_onnx",
    "load": "flyweight.bundle.load",
    "non_inferior": "flyweight.quality.intervals",
    "partition": "flyweight.parallel.partition",
    "profile": "flyweight.planning.profile",
    "read_recipe": "flyweight.planning.recipe",
    "shard": "flyweight.bundle.shards.shard",
    "verify": "flyweight.bundle.verify",
}
__version__ = "0.1.0"
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flyweight' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name in ("torch", "scipy", "onnxscript"):
            raise ImportError(
                f"flyweight.{name} needs {error.name}, which serving does not: pip install 'flyweight[compress]'"
            ) from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
