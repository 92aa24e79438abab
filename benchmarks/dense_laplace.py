"""The clip that the minimum-error search finds for numbers of a Laplace distribution, beside the closed form.

python benchmarks/dense_laplace.py     # writes results/dense_laplace.json, a minute
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dense_tables import spread
from flyweight.cost.hardware import describe_hardware, package_versions
from flyweight.quantization.ranges import find_range

RESULT = Path(__file__).parent / "results" / "dense_laplace.json"
#: As printed by Banner et al. 2019 (arXiv:1810.05723); the root of their own equation at 3 bits is 3.8972.
PUBLISHED = {2: 2.83, 3: 3.86, 4: 5.03}
SEEDS = (0, 1, 2)
NUMBERS = 1_000_000


def laplace(seed: int, numbers: int = NUMBERS) -> Tensor:
    """Return numbers of Laplace(1): one drawn in each of `numbers` slices of equal probability.

    Slices take the chance out of how many numbers lie far out, which is what a clip hangs on.
    """
    drawn = torch.rand(numbers, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    places = (torch.arange(numbers, dtype=torch.float64) + drawn) / numbers
    return torch.distributions.Laplace(torch.zeros((), dtype=torch.float64), 1.0).icdf(places).float()


def closed_form(bits: int) -> float:
    """Return the root of `a e^a = 3 * 4^bits` by Newton's method, where the error that ACIQ expects is least."""
    found = torch.tensor(3.0, dtype=torch.float64)
    for _ in range(60):
        found = found - (found * found.exp() - 3 * 4**bits) / ((1 + found) * found.exp())
    return float(found)


def measure(bits: int) -> dict[str, Any]:
    """Return the clips of both searches over seeds, with the mean and its 95% interval."""
    noise, whole, errors = [], [], []
    for seed in SEEDS:
        values = laplace(seed)
        found = find_range(values, bits, method="noise")
        noise.append(float(found.scale) * found.high)
        best = find_range(values, bits)
        whole.append(float(best.scale) * best.high)
        ends = find_range(values, bits, method="minmax")
        errors.append(float(ends.error / best.error))
    mean, half = spread(noise)
    mean_whole, half_whole = spread(whole)
    return {
        "bits": bits,
        "published_clip": PUBLISHED[bits],
        "closed_form_clip": closed_form(bits),
        "clip": {"mean": mean, "half_interval": half, "seeds": noise},
        "relative_to_published": mean / PUBLISHED[bits] - 1,
        "relative_to_closed_form": mean / closed_form(bits) - 1,
        "within_1_percent": abs(mean / PUBLISHED[bits] - 1) + (half or 0.0) / PUBLISHED[bits] <= 0.01,
        "integers_clip": {"mean": mean_whole, "half_interval": half_whole, "seeds": whole},
        "error_of_minmax_over_error": spread(errors)[0],
    }


def main() -> None:
    """Measure 2, 3 and 4 bits, and write them down."""
    torch.set_num_threads(1)
    found = {
        "what": "clip of Laplace(1) with the least expected squared error, rounding taken as noise (ACIQ), found from "
        f"{NUMBERS:,} numbers; integers_clip is that of the integers that a file stores",
        "hardware": describe_hardware(),
        "versions": package_versions(),
        "rows": [measure(bits) for bits in PUBLISHED],
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    for row in found["rows"]:
        clip = row["clip"]
        print(
            f"{row['bits']} bits: {clip['mean']:.4f} b +- {clip['half_interval']:.4f}, "
            f"published {row['published_clip']}, closed form {row['closed_form_clip']:.4f}; "
            f"stored integers {row['integers_clip']['mean']:.4f} b"
        )


if __name__ == "__main__":
    main()
