# SPDX-License-Identifier: BSD-2-Clause
"""What a bench leaves behind, and what two of them say of each other."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from harness.errors import UsageError
from harness.files import read_file, write_whole
from harness.results.certainty import Interval, shift_interval
from harness.store import Store

FORMAT = 1
KIND = "bench"
#: How long this host takes to compute something that has nothing to do with the harness: other readings are divided by
#: it before two benches are compared, because hosts are not always equally fast.
YARDSTICK = "yardstick: computing on this host"
#: Of all that is said about two benches.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measurement:
    """Several readings of one quantity."""

    name: str
    unit: str
    readings: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.readings)

    @property
    def more_is_better(self) -> bool:
        """Whether it is a speed; else it is a time."""
        return "/" in self.unit

    def to_json(self) -> dict[str, object]:
        """Return the readings with their median."""
        return {**asdict(self), "median": self.median}


@dataclass(frozen=True)
class Ratio:
    """Two measurements of one run, side by side; ratios survive a noisy host where seconds do not."""

    name: str
    value: float


@dataclass(frozen=True)
class BenchResult:
    """All measurements about one target."""

    target: str
    identity: str
    accelerator: str
    measurements: tuple[Measurement, ...]
    ratios: tuple[Ratio, ...]
    qemu: str = ""
    harness: str = ""

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "format": FORMAT,
            "kind": KIND,
            **{name: getattr(self, name) for name in ("target", "identity", "accelerator", "qemu", "harness")},
            "measurements": [measurement.to_json() for measurement in self.measurements],
            "ratios": [asdict(ratio) for ratio in self.ratios],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none."""
        if data["kind"] != KIND or int(data["format"]) > FORMAT:
            raise ValueError(f"it is a {data['kind']} of format {data['format']}")
        measurements = (
            Measurement(str(each["name"]), str(each["unit"]), tuple(map(float, each["readings"])))
            for each in data["measurements"]
        )
        ratios = (Ratio(str(each["name"]), float(each["value"])) for each in data["ratios"])
        return cls(
            str(data["target"]),
            str(data["identity"]),
            str(data["accelerator"]),
            tuple(measurements),
            tuple(ratios),
            str(data.get("qemu", "")),
            str(data.get("harness", "")),
        )

    def write(self, store: Store, file: Path | None = None) -> Path:
        """Write it to FILE, or among the store's results; raises OSError."""
        stamp = datetime.now(UTC).isoformat(timespec="seconds").replace(":", "").partition("+")[0]
        target = file if file is not None else store.folder("results") / f"{KIND}-{stamp}-{os.getpid()}.json"
        write_whole(target, json.dumps(self.to_json(), indent=1) + "\n")
        return target


def read_bench(file: Path) -> BenchResult:
    """Return the bench in FILE; raises UsageError, in one line, when it is none."""
    try:
        return BenchResult.from_json(json.loads(read_file(file)))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is no record of a bench: give what `dfly-harness bench --json FILE` wrote") from error


@dataclass(frozen=True)
class Change:
    """How many times slower something became, measured against the yardstick; without `interval` there is no telling.

    The intervals of all changes of a bench hold together.
    """

    name: str
    slower: float
    interval: Interval | None

    @property
    def said(self) -> str:
        """What can be said of it."""
        if self.interval is None:
            return "too few readings to tell"
        if 1.0 in self.interval:
            return "no difference seen"
        return "slower" if self.interval.low > 1 else "faster"


def compare_benches(before: BenchResult, now: BenchResult) -> list[Change]:
    """Return what became of each quantity that both have; raises UsageError where they cannot be compared."""
    earlier = {each.name: each for each in before.measurements}
    pairs = [(earlier[each.name], each) for each in now.measurements if each.name in earlier]
    pairs = [pair for pair in pairs if min(*pair[0].readings, *pair[1].readings) > 0]
    each_sure = 1 - (1 - CONFIDENCE) / max(1, len(pairs))
    host = next((_shift(old, new, each_sure) for old, new in pairs if new.name == YARDSTICK), None)
    if host is None:
        raise UsageError("one of the benches has no yardstick: take both with this version")
    shifts = {new.name: _shift(old, new, each_sure) for old, new in pairs if new.name != YARDSTICK}
    return [_change(name, shift, host) for name, shift in shifts.items()]


#: By how much the logarithm of a time grew, and what that may be as well.
_Shift = tuple[float, Interval | None]


def _shift(old: Measurement, new: Measurement, confidence: float) -> _Shift:
    sign = -1 if new.more_is_better else 1
    base, other = ([sign * math.log(value) for value in each.readings] for each in (old, new))
    middle = statistics.median(two - one for one in base for two in other)
    return middle, shift_interval(base, other, confidence)


def _change(name: str, shift: _Shift, host: _Shift) -> Change:
    """Judge one quantity, HOST being what became of the host itself."""
    (middle, found), (yardstick, spread) = shift, host
    if found is None or spread is None:
        return Change(name, math.exp(middle - yardstick), None)
    return Change(
        name,
        math.exp(middle - yardstick),
        Interval(math.exp(found.low - spread.high), math.exp(found.high - spread.low)),
    )
