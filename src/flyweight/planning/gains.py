"""What each method would gain, before any is applied: measured where that is quick, else counted or estimated."""

from collections.abc import Callable, Mapping

from flyweight.errors import ExportError, InputError
from flyweight.planning.gain import Gain
from flyweight.planning.gains_layers import distilled, factorized, pruned, quantized
from flyweight.planning.gains_measured import in_bfloat16, quickest_engine, request_once
from flyweight.planning.gains_tables import dropped_field, encoded_tables
from flyweight.planning.known import Known
from flyweight.task.change import Skipped

STEP = "gains"


def find_gains(known: Known) -> tuple[tuple[Gain, ...], tuple[Skipped, ...]]:
    """Return what each method alone would gain, those first that change no number, and what could not be said."""
    gains, skipped = [], []
    for words, method in METHODS.items():
        try:
            gain = method(known)
        except (InputError, ExportError) as error:
            skipped.append(Skipped(words, str(error), STEP))
            continue
        if gain is not None:
            gains.append(gain)
    return tuple(gains), tuple(skipped)


#: In the order in which they are told of.
METHODS: Mapping[str, Callable[[Known], Gain | None]] = {
    "the quickest engine": quickest_engine,
    "each request once": request_once,
    "bfloat16": in_bfloat16,
    "EncodeTables": encoded_tables,
    "Quantize": quantized,
    "Prune": pruned,
    "Factorize": factorized,
    "DropFields": dropped_field,
    "Distill": distilled,
}
