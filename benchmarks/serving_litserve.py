"""The model in eager PyTorch behind LitServe, as its documents say: decode, predict, encode.

    python benchmarks/serving_litserve.py --port 8001 --workers 2 --threads 1 --batch 1

LitServe reads JSON or forms and no other bytes; tensors as base64 in JSON were quicker than lists. A user's fields come
once and are repeated here for each candidate, as the model takes them.
"""

import argparse
import base64
from typing import Any

import litserve
import numpy as np
import torch
from numpy.typing import NDArray

from flyweight.zoo.tasks import ZOO
from serving_requests import TASK, Arrays


def request_of(asked: Arrays, offered: Arrays) -> dict[str, str]:
    """The JSON of a request."""
    return {name: base64.b64encode(array.tobytes()).decode() for name, array in {**asked, **offered}.items()}


class Eager(litserve.LitAPI):
    """The default ranker as it was trained."""

    threads = 1

    def setup(self, device: str) -> None:
        torch.set_num_threads(self.threads)
        self.model = ZOO[TASK]().model.eval()

    def decode_request(self, request: dict[str, str]) -> dict[str, NDArray[Any]]:
        arrays = {name: np.frombuffer(base64.b64decode(text), np.int64) for name, text in request.items()}
        rows = max(map(len, arrays.values()))
        return {name: array if len(array) == rows else array.repeat(rows) for name, array in arrays.items()}

    def batch(self, inputs: list[dict[str, NDArray[Any]]]) -> Any:
        joined = {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}
        return joined, [len(next(iter(one.values()))) for one in inputs]

    def unbatch(self, output: Any) -> Any:
        return output

    def predict(self, given: Any) -> Any:
        arrays, sizes = given if isinstance(given, tuple) else (given, None)
        with torch.inference_mode():
            scores = self.model(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        return scores if sizes is None else list(torch.split(scores, sizes))

    def encode_response(self, output: torch.Tensor) -> dict[str, str]:
        return {"scores": base64.b64encode(output.numpy().tobytes()).decode()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    given = parser.parse_args()
    api = Eager(max_batch_size=given.batch)
    api.threads = given.threads
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=given.workers, fast_queue=True)
    server.run(host="127.0.0.1", port=given.port, generate_client_file=False, log_level="error")


if __name__ == "__main__":
    main()
