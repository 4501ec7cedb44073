# SPDX-License-Identifier: BSD-2-Clause
"""How often a kernel shows the failure: what is believed before the first run."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

#: Share of belief that the failure happens each time and never without the culprit; the rest is for all else.
CERTAIN = 0.25
# Mean rates of the failure: evenly spaced in the logarithm, near enough that none lies far from one of them.
_MEANS = tuple(0.95 * (0.004 / 0.95) ** (step / 19) for step in range(20))
# How much rates differ by commit: 1 / (a + b) of a Beta distribution, 0 for not at all.
_SPREADS = {0.0: 0.5, 0.1: 0.25, 1 / 3: 0.25}
# False alarms: their mean rate, how much it differs by commit, and the share of belief.
_ALARMS = {
    (0.0, 0.0): 0.70,
    (0.0008, 0.0): 0.05,
    (0.0025, 0.0): 0.05,
    (0.008, 0.0): 0.05,
    (0.025, 0.0): 0.05,
    (0.08, 0.0): 0.03,
    (0.25, 0.0): 0.03,
    (0.05, 2.0): 0.04,
}
# Without the culprit it has to be rarer by this factor at least.
_RARER = 0.6


@dataclass(frozen=True)
class Rates:
    """Hypotheses about rates, with the belief in each: the integral over what nobody knows is a sum over these.

    `with_culprit` and `without` are the mean chances of a bad run.  Each kernel has a rate of its own, drawn from a
    Beta distribution with that mean; the spreads are 1 / (a + b) of it, 0 where all kernels have the same rate.
    Hypothesis 0 is that of certainty: always bad with the culprit, never without.
    """

    with_culprit: Vector
    with_spread: Vector
    without: Vector
    without_spread: Vector
    belief: Vector
    is_fix: bool = False

    @classmethod
    def of_failure(cls, certain: float = CERTAIN) -> Rates:
        """Return what is believed of a failure that a commit brought; CERTAIN is the belief that it always happens."""
        rows = [(1.0, 0.0, 0.0, 0.0, 0.0)]
        for mean, (spread, share), ((alarm, differs), likely) in product(
            (1.0, *_MEANS), _SPREADS.items(), _ALARMS.items()
        ):
            if alarm < _RARER * mean and not (mean == 1.0 and (spread or not alarm)):
                rows.append((mean, spread, alarm, differs, likely * (1.0 if mean == 1.0 else share)))
        table = np.array(rows)
        belief = table[:, 4]
        belief *= (1 - certain) / belief.sum()
        belief[0] = certain
        return cls(table[:, 0], table[:, 1], table[:, 2], table[:, 3], belief)

    @classmethod
    def of_fix(cls, certain: float = CERTAIN) -> Rates:
        """Return what is believed where the commit sought is a fix: runs with it pass, and without it sometimes, too.

        "Bad" is then a run that passes, as in `--good-means fail`.
        """
        failure = cls.of_failure(certain)
        return cls(
            1 - failure.without,
            failure.without_spread,
            1 - failure.with_culprit,
            failure.with_spread,
            failure.belief,
            is_fix=True,
        )

    def accounts(self) -> NDArray[np.int64]:
        """Return a number for each hypothesis: that of those which say the same about the failure sought."""
        mean, spread = (self.without, self.without_spread) if self.is_fix else (self.with_culprit, self.with_spread)
        return np.asarray(np.unique(np.stack([mean, spread]), axis=1, return_inverse=True)[1]).ravel()

    def chances(self, bad: int, good: int) -> tuple[Vector, Vector]:
        """Return the chance that the next run of a kernel is bad with the culprit, and without it.

        BAD and GOOD are how many runs of the same kernel came out so before.
        """
        return (
            (self.with_culprit + self.with_spread * bad) / (1 + self.with_spread * (bad + good)),
            (self.without + self.without_spread * bad) / (1 + self.without_spread * (bad + good)),
        )
