"""The tools that do the same job, each used as its authors advise: NNCF, ONNX Runtime, torchao and Torch-Pruning.

Each function takes a model and gives back a file or a module; `contender_of_file` and `contender_of_module` make of
either what can be scored and timed in one run with ours. Post-training: none of them trains here.
"""

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.engines.executed import Executed, executed_operators
from flyweight.engines.registry import find_engine
from flyweight.graph.quiet import quietly
from flyweight.task.scores import evaluating

Arrays = dict[str, NDArray[Any]]
#: Rows that the quantisers look at: NNCF's default subset, given to all.
SUBSET = 300


@dataclass(frozen=True)
class Contender:
    """A model that can be scored and timed.

    Args:
        name: in words.
        run: scores of a batch of arrays by the inputs' names.
        bytes: on disk.
        kernels: what the engine runs, where it tells.
    """

    name: str
    run: Callable[[Arrays], NDArray[Any]]
    bytes: int
    kernels: tuple[Executed, ...] = ()


def contender_of_file(name: str, path: Path, engine: str = "onnxruntime", threads: int = 1) -> Contender:
    """Return a file as an engine runs it: ONNX in either, OpenVINO's own format (.xml) in OpenVINO."""
    if path.suffix == ".xml":
        return _contender_of_xml(name, path, threads)
    data = path.with_name(f"{path.name}.data")
    size = path.stat().st_size + (data.stat().st_size if data.exists() else 0)
    run = find_engine(engine).prepare(path, threads).run
    return Contender(name, run, size, executed_operators(path, engine, threads))


def _contender_of_xml(name: str, path: Path, threads: int) -> Contender:
    """Return OpenVINO's own format, run under the settings that ONNX files run under in OpenVINO here."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()

    def run(inputs: Arrays) -> NDArray[Any]:
        request.infer(inputs)
        return request.get_output_tensor(0).data.copy()

    size = path.stat().st_size + path.with_suffix(".bin").stat().st_size
    return Contender(name, run, size, _kernels(compiled))


def _kernels(compiled: Any) -> tuple[Executed, ...]:
    """Return what OpenVINO runs, in the words of `flyweight.engines.executed`."""
    words = {"f32": "float32", "bf16": "bfloat16", "u8": "uint8", "i8": "int8", "i32": "int32", "i64": "int64"}
    seen: Counter[tuple[str, str]] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        note = node.get_rt_info()["layerType"]
        operator = str(note.astype(str) if hasattr(note, "astype") else note)
        if operator not in ("Const", "Input", "Output"):
            port = node.input(0) if node.get_input_size() else node.output(0)
            kind = port.get_element_type().get_type_name()
            seen[operator, words.get(kind, kind)] += 1
    return tuple(Executed(operator, kind, count) for (operator, kind), count in seen.most_common())


def contender_of_module(name: str, model: nn.Module, *, compiled: bool = False) -> Contender:
    """Return a module as PyTorch runs it, eagerly or compiled; its bytes are those of its saved weights."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "weights.pt")
        size = (Path(folder) / "weights.pt").stat().st_size
    called: Callable[..., Tensor] = torch.compile(model) if compiled else model

    def run(inputs: Arrays) -> NDArray[Any]:
        with evaluating(model), torch.no_grad():
            return called(**{key: torch.from_numpy(value) for key, value in inputs.items()}).numpy()

    return Contender(name, run, size)


def rows_of(batches: Iterable[Arrays], rows: int = SUBSET) -> Iterator[Arrays]:
    """Yield the first rows of batches one by one."""
    left = rows
    for batch in batches:
        for row in range(min(left, len(next(iter(batch.values()))))):
            yield {name: values[row : row + 1] for name, values in batch.items()}
            left -= 1
        if left == 0:
            return


def nncf_int8(
    path: Path, batches: Iterable[Arrays], folder: Path, *, backend: str = "openvino", rows: int = SUBSET
) -> Path:
    """Quantise with NNCF's defaults (preset "performance", fast bias correction), from `rows` rows one by one.

    Args:
        path: the model in ONNX.
        backend: "openvino" gives OpenVINO's format, which OpenVINO alone runs; "onnx" gives ONNX.
    """
    with quiet():
        import nncf
        import openvino

        dataset = nncf.Dataset(list(rows_of(batches, rows)))
        if backend == "onnx":
            made = nncf.quantize(onnx.load(path), dataset, subset_size=rows)
            onnx.save(made, folder / "nncf.onnx")
            return folder / "nncf.onnx"
        made = nncf.quantize(openvino.Core().read_model(path), dataset, subset_size=rows)
        openvino.save_model(made, folder / "nncf.xml", compress_to_fp16=False)
    return folder / "nncf.xml"


class _Reader:
    """Calibration rows as ONNX Runtime asks for them."""

    def __init__(self, rows: Iterable[Arrays]) -> None:
        self._left = iter(rows)

    def get_next(self) -> Arrays | None:
        return next(self._left, None)

    def __iter__(self) -> Iterator[Arrays]:
        return self._left


def ort_int8(path: Path, batches: Iterable[Arrays], folder: Path, *, rows: int = SUBSET) -> Path:
    """Quantise with ONNX Runtime: static QDQ, uint8 activations by min-max, int8 weights per channel, preprocessed."""
    with quiet():
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        ready, made = folder / "ort_ready.onnx", folder / "ort.onnx"
        onnx.save(onnx.load(path), ready)  # in one file: the preprocessing looks for weights in a folder of its own
        quant_pre_process(str(ready), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready), str(made), _Reader(rows_of(batches, rows)), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        ready.unlink()
    return made


def ort_dynamic(path: Path, folder: Path) -> Path:
    """Quantise with ONNX Runtime: int8 weights, activations by their range in each call; products only."""
    with quiet():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        made = folder / "ort_dynamic.onnx"
        # Convolutions are left out, as their integer operator (ConvInteger) has no fast kernel on CPUs.
        quantize_dynamic(str(path), str(made), per_channel=True, weight_type=QuantType.QInt8,
                         op_types_to_quantize=["MatMul", "Gemm"])  # fmt: skip
    return made


def torchao_int8(model: nn.Module, *, weight_only: bool = False) -> nn.Module:
    """Return a copy whose linear layers torchao holds in int8; convolutions stay, as it has none of them."""
    with quiet():
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

        copied = copy.deepcopy(model).eval()
        quantize_(copied, Int8WeightOnlyConfig() if weight_only else Int8DynamicActivationInt8WeightConfig())
    return copied


def torch_pruning_l1(
    model: nn.Module, inputs: dict[str, Tensor], macs: float, *, ignored: Sequence[str], multiple: int = 8
) -> nn.Module:
    """Return a copy pruned by Torch-Pruning's L1 norm of groups, globally, until `macs` of the work is left.

    Args:
        inputs: an example of one row or more.
        macs: share of the multiply-accumulates that may be left, in (0, 1).
        ignored: layers that stay, by name: the last.
    """
    with quiet():
        import torch_pruning

        return _pruned(model, inputs, macs, torch_pruning.importance.GroupMagnitudeImportance(p=1), ignored, multiple)


def torch_pruning_taylor(
    model: nn.Module,
    batches: Iterable[tuple[dict[str, Tensor], Tensor]],
    macs: float,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    ignored: Sequence[str],
    multiple: int = 8,
) -> nn.Module:
    """Return a copy pruned by Torch-Pruning's first-order Taylor saliency, from the summed gradient of `batches`."""
    with quiet():
        import torch_pruning

        copied = copy.deepcopy(model).eval()
        copied.zero_grad()
        inputs: dict[str, Tensor] = {}
        for inputs, target in batches:
            loss(copied(**inputs), target).backward()
        importance = torch_pruning.importance.GroupTaylorImportance()
        return _pruned(copied, inputs, macs, importance, ignored, multiple)


#: Goes in which channels are taken, so that the target is met closely.
STEPS = 100


def _pruned(
    model: nn.Module, inputs: dict[str, Tensor], macs: float, importance: Any, ignored: Sequence[str], multiple: int
) -> nn.Module:
    import torch_pruning

    copied = copy.deepcopy(model).eval()
    for mine, theirs in zip(copied.parameters(), model.parameters(), strict=True):
        mine.grad = None if theirs.grad is None else theirs.grad.clone()  # a deep copy leaves gradients behind
    one = {name: value[:1] for name, value in inputs.items()}
    whole = torch_pruning.utils.count_ops_and_params(copied, one)[0]
    pruner = torch_pruning.pruner.BasePruner(
        copied, one, importance=importance, global_pruning=True, pruning_ratio=1.0, max_pruning_ratio=0.95,
        iterative_steps=STEPS, ignored_layers=[copied.get_submodule(name) for name in ignored], round_to=multiple,
    )  # fmt: skip
    for _ in range(STEPS):
        if torch_pruning.utils.count_ops_and_params(copied, one)[0] <= macs * whole:
            break
        pruner.step()
    copied.zero_grad()
    return copied


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and advice of the tools off the terminal."""
    told = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with quietly(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(told)
