"""A request of the Open Inference Protocol v2, read from bytes: JSON, or a JSON header with binary tensors after it.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; the binary tensor
data extension: https://github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from flyweight.serving.layout import Layout, layout_of
from flyweight.serving.refusal import Refusal

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tensors:
    """What a request holds, before it is known whether a model takes it.

    Args:
        inputs: arrays by name, in their shapes; strings as objects.
        id: the caller's name for the request, given back with the answer.
        binary: whether scores are due as bytes.
        parameters: the request's own, such as `timeout` in microseconds.
        layout: how they lay in the body; None where they did not come as bytes.
    """

    inputs: dict[str, Array]
    id: str = ""
    binary: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout | None = None


def read_tensors(body: bytes | memoryview, header_length: int | None) -> Tensors:
    """Return the tensors of a body.

    Args:
        header_length: bytes of JSON before the binary tensors (`Inference-Header-Content-Length`); None: all is JSON.

    Raises:
        Refusal: the body is no request of the protocol, or lies about its size.
    """
    if header_length is not None and not 0 < header_length <= len(body):
        raise Refusal(
            f"Inference-Header-Content-Length says {header_length:,} bytes of JSON; the body has {len(body):,} bytes."
        )
    layout = layout_of(bytes(body if header_length is None else body[:header_length]))
    arrays = layout.arrays(memoryview(b"" if header_length is None else body)[header_length or 0 :].toreadonly())
    return Tensors(arrays, layout.id, layout.binary, layout.parameters, None if layout.given else layout)
