# SPDX-License-Identifier: BSD-2-Clause
"""What a pytest session is about: decided once, opened when a test first needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.guests.control import BANNER
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.features import KernelFacts
from harness.guests.guest import Progress, Target
from harness.guests.targets import ResolvedTarget, decide
from harness.oracle import rules_of, split_target
from harness.runs.options import RunOptions
from harness.store import Store


class TestedTarget:
    """The target that OPTIONS mean, or the oracle; HANDED is what another process resolved it to."""

    __test__ = False

    def __init__(self, options: RunOptions, store: Store, handed: str = "") -> None:
        self._options = options
        self._store = store
        self._resolved = ResolvedTarget.from_text(handed) if handed else options.resolved
        self._target: Target | None = None

    @property
    def variant(self) -> str | None:
        """The oracle's variant, "" for the specification itself, None on a real target."""
        return self._options.oracle

    @property
    def is_named(self) -> bool:
        """Whether the user said which target, so that a name that does not exist is a mistake at once."""
        given = self._options.target
        return given.image is not None or given.kernel is not None or given.control

    def resolved(self) -> ResolvedTarget:
        """Return the target by content; raises pytest.UsageError for unknown names."""
        if self._resolved is None:
            try:
                self._resolved = decide(self._options.target.choice, self._store)
            except UsageError as error:
                raise pytest.UsageError(str(error)) from None
        return self._resolved

    def open(self, progress: Progress = lambda _: None) -> Target:
        """Return the real target; raises what ResolvedTarget.open() raises."""
        if self._target is None:
            self._target = self.resolved().open(self._store, progress)
        return self._target

    @property
    def label(self) -> str:
        """What every report says the run was about; empty as long as it is not known."""
        if self.variant is not None:
            era, variant = split_target(self.variant)
            return f"ORACLE, NOT A KERNEL: {variant or 'the specification'} of {era}"
        if self._target is None and self._resolved is not None:
            if not self._resolved.is_dragonfly:
                return BANNER  # its version is known once it is put together
            self.open()  # which costs nothing
        return self._target.label if self._target is not None else ""

    def subject(self) -> dict[str, Any]:
        """Return what is tested in the words of a record, for those who look for runs on its like."""
        target = self._target
        if self.variant is not None or not isinstance(target, DragonFlyTarget):
            return {}
        about = {"image": target.image.name, "osreldate": target.osreldate}
        if target.kernel is not None:
            about |= {"kernel": target.kernel.name, "kernel_digest": target.kernel.elf}
        return about

    @property
    def is_dragonfly(self) -> bool:
        """Whether results are about DragonFly."""
        return self.variant is None and self.resolved().is_dragonfly

    @property
    def facts(self) -> KernelFacts | None:
        """What is known of the kernel before it runs; None on the control guest."""
        if self.variant is not None:
            era = split_target(self.variant)[0]
            return KernelFacts.of_revision(era.osreldate, era.date, era.traits.record_size)
        return KernelFacts(self.open().osreldate) if self.resolved().is_dragonfly else None

    def check_variant(self) -> None:
        """Raise pytest.UsageError for an oracle that there is not."""
        if self.variant is not None:
            if self.variant and Path(self.variant.partition("::")[0]).exists():
                raise pytest.UsageError(
                    f"{self.variant} was taken for a variant of the oracle: put tests first, or write --dfly-oracle="
                )
            try:
                rules_of(self.variant)
            except UsageError as error:
                raise pytest.UsageError(str(error)) from None
