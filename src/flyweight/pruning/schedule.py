"""How much goes in each round, so that early rounds take much and late ones, when little is left to spare, little."""


def cubic_ratios(ratio: float, rounds: int) -> list[float]:
    """Return the share of single weights that is gone after each round: `ratio * (1 - (1 - t / rounds) ** 3)`.

    Source: Zhu & Gupta 2017, arXiv 1710.01878, eq. 1.

    Example:
        >>> [round(ratio, 3) for ratio in cubic_ratios(0.9, 3)]
        [0.633, 0.867, 0.9]
    """
    return [ratio * (1 - (1 - turn / rounds) ** 3) for turn in range(1, rounds)] + [ratio]


def geometric_shares(share: float, rounds: int) -> list[float]:
    """Return the share of what there was that is left after each round, every round taking the same part of the rest.

    Example:
        >>> geometric_shares(0.25, 2)
        [0.5, 0.25]
    """
    return [share ** (turn / rounds) for turn in range(1, rounds)] + [share]
