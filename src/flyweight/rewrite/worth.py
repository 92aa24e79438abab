"""What a rewrite saves and what its new operators cost, at a request of 500 candidates, on one thread.

Measured with ONNX Runtime: a call of an operator takes 2 to 4 microseconds whatever it does, products run at 20 to 50
thousand multiply-adds a microsecond, and what reads or writes one number after another at about two thousand.
"""

#: Candidates of a request.
ROWS = 500
OPERATOR = 3.0
MACS, NUMBERS = 20_000.0, 2_000.0


def saved(*, macs: float = 0.0, numbers: float = 0.0, operators: float = 0.0) -> float:
    """Return microseconds of a call.

    Args:
        macs: multiply-adds that are saved, of each row.
        numbers: read or written, of each row.
        operators: calls; negative where there are more than before.

    Example:
        >>> saved(macs=400, operators=-1)
        7.0
    """
    return ROWS * (macs / MACS + numbers / NUMBERS) + OPERATOR * operators


def too_little(gain: float, cost: float) -> str | None:
    """Return why something is not worth its new operators, None where it is; both in microseconds."""
    if gain > cost:
        return None
    return f"saves {gain:.1f} us a request of {ROWS} candidates, and its new operators take {cost:.1f} us"
