# SPDX-License-Identifier: BSD-2-Clause
"""How often a kernel shows the failure: what is believed before the first run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

#: Share of belief that the failure happens each time; the rest is for flaky ones.
CERTAIN = 0.25
# How often a flaky failure happens, with shares of belief: often, sometimes and rarely, and little for rates between
# and beyond.  That near is enough to know what a good run means; a finer scale would only take more runs.
_FLAKY = {0.5: 5.0, 0.2: 5.0, 0.05: 5.0, 0.8: 0.5, 0.33: 0.5, 0.1: 0.5, 0.02: 0.5, 0.01: 0.25}
# Share of the flaky ones' belief that kernels without the culprit show the failure, too: (without, with).
_NOISY = 0.001
_NOISE = ((0.02, 0.3), (0.02, 0.9), (0.1, 0.5), (0.1, 0.95), (0.3, 0.95))


@dataclass(frozen=True)
class Rates:
    """Hypotheses about rates: chance that a run is bad `with_culprit` and `without` it, and belief in each.

    The integral over the unknown rates is a sum over these.  Hypothesis 0 is that of certainty: always bad with the
    culprit, never without.
    """

    with_culprit: Vector
    without: Vector
    belief: Vector

    @classmethod
    def of_failure(cls, certain: float = CERTAIN) -> Rates:
        """Return what is believed of a failure that a commit brought; CERTAIN is the belief that it always happens."""
        flaky, shares, noise = np.array([*_FLAKY]), np.array([*_FLAKY.values()]), np.array(_NOISE)
        belief = np.concatenate(
            [
                [certain],
                (1 - certain) * (1 - _NOISY) * shares / shares.sum(),
                np.full(len(noise), (1 - certain) * _NOISY / len(noise)),
            ]
        )
        return cls(
            np.concatenate([[1.0], flaky, noise[:, 1]]),
            np.concatenate([[0.0], np.zeros(len(flaky)), noise[:, 0]]),
            belief,
        )

    @classmethod
    def of_fix(cls, certain: float = CERTAIN) -> Rates:
        """Return what is believed where the commit sought is a fix: runs with it pass, and without it sometimes, too.

        "Bad" is then a run that passes, as in `--good-means fail`.
        """
        failure = cls.of_failure(certain)
        return cls(1 - failure.without, 1 - failure.with_culprit, failure.belief)
