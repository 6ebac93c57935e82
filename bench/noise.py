"""What makes figures doubtful: others on the machine, and rounds that do not agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .results import Contender, median_interval

OTHERS = 0.05  # of the cores: a twentieth is what a desktop's own programs take
SPREAD = 0.15  # the rounds' ratios between their quartiles, as a part of the median
ROUNDS = 6  # of fewer, no two order statistics enclose the median with 95% confidence


def warnings(contenders: Sequence[Contender], others: float) -> tuple[str, ...]:
    """Findings in words about rounds in which other processes took a share of the cores."""
    ours, *peers = contenders
    found = []
    if others > OTHERS:
        found.append(
            f"other processes took {others:.0%} of the cores while contenders took turns: the "
            "machine was too busy to trust times, and ratios little; measure again when it is quiet"
        )
    if len(ours.seconds) < ROUNDS:
        found.append(
            f"{len(ours.seconds)} rounds: the intervals hold less than 95%, use --repeat 6"
        )
    for peer in peers:
        ratios = np.array(ours.seconds) / np.array(peer.seconds)
        low, middle, high = np.percentile(ratios, (25, 50, 75))
        if high - low > SPREAD * middle:
            found.append(
                f"{peer.name}: the machine was too noisy to tell the ratio well: half of the "
                f"rounds lie outside {low:.3g} to {high:.3g}"
            )
        below, above = median_interval(ratios)
        if below <= 1 <= above:
            found.append(f"{peer.name}: no telling who is faster, the interval holds 1")
    return tuple(found)
