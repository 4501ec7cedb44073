# SPDX-License-Identifier: BSD-2-Clause
"""Which target a command is about, from the names a user gives, or the store's newest."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from harness.config import here
from harness.errors import HarnessError, UsageError
from harness.guests.control import ControlTarget
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import Progress, Target
from harness.guests.installed import InstalledTarget
from harness.images.base import BaseImage
from harness.images.control import ControlImage, build_control_image
from harness.kernels.artefact import Kernel
from harness.store import Store

#: The kernel name that means: whatever the image's own loader boots.
INSTALLED = "installed"


@dataclass(frozen=True)
class TargetChoice:
    """What the user said; None means no word was said."""

    image: str | None = None
    kernel: str | None = None
    control: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def has_dragonfly(store: Store) -> bool:
    """Tell whether the store holds what a DragonFly target is made of."""
    return bool(store.all(BaseImage)) and bool(store.all(Kernel))


def _newest(kind: type[BaseImage] | type[Kernel], store: Store, how: str) -> str:
    records: list[BaseImage | Kernel] = [*store.all(kind)]
    if not records:
        raise UsageError(f"the store has no {kind.KIND}: {how}")
    return max(records, key=lambda record: record.imported).name


def _control_image(store: Store, progress: Progress) -> ControlImage:
    try:
        return build_control_image(store.cache, progress)
    except HarnessError as error:
        # apt takes a full disk for a download that failed.
        if any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT)):
            raise HarnessError(
                f"the disk is full: {store.home} does not take the control guest; free some space or set"
                " DFLY_HARNESS_HOME to a larger disk"
            ) from error
        raise


@dataclass(frozen=True)
class ResolvedTarget:
    """What a choice came to, by content: workers and children of a run get this, so that an import changes nothing.

    No image: the control guest.  No kernel: the one installed on the image, of which the store knows nothing.
    """

    image: BaseImage | None = None
    kernel: Kernel | None = None
    by_loader: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_dragonfly(self) -> bool:
        """Whether verdicts are about DragonFly."""
        return self.image is not None

    def open(self, store: Store, progress: Progress = lambda _: None) -> Target:
        """Return the target; the control guest is put together first if need be.

        Raises HarnessError when it cannot be, and says so where that is for want of room.
        """
        if self.image is None:
            return ControlTarget(_control_image(store, progress))
        kind = InstalledTarget if self.by_loader else DragonFlyTarget
        return kind(self.image, self.kernel, store, self.environment)

    def to_text(self) -> str:
        """Return it as one word of a command line."""
        records = {"image": self.image, "kernel": self.kernel}
        given = {name: asdict(record) if record is not None else None for name, record in records.items()}
        return json.dumps({**given, "by_loader": self.by_loader, "environment": dict(self.environment)})

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Rebuild it; raises UsageError for anything else than what to_text() wrote."""
        try:
            data = json.loads(text)
            image = BaseImage.from_json(data["image"]) if data["image"] is not None else None
            kernel = Kernel.from_json(data["kernel"]) if data["kernel"] is not None else None
            return cls(image, kernel, data["by_loader"], data["environment"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"this is no resolved target ({error}): the option is for the harness itself") from None


def decide(choice: TargetChoice, store: Store) -> ResolvedTarget:
    """Return what CHOICE means now; where it is silent, the image and kernel imported last.

    Without a word and without a DragonFly image in the store this is the control guest.  Raises UsageError for unknown
    names and contradictions.
    """
    named = choice.image is not None or choice.kernel is not None
    if choice.control and named:
        raise UsageError("--control is a target of its own: leave out --image and --kernel, or leave out --control")
    if choice.control or not (named or has_dragonfly(store)):
        return ResolvedTarget()
    image = store.get(BaseImage, choice.image or _newest(BaseImage, store, IMPORT_IMAGE))
    if choice.kernel == INSTALLED:
        kernel = store.get(Kernel, image.installed_kernel) if image.installed_kernel else None
        return ResolvedTarget(image, kernel, kernel is not None, choice.environment)
    kernel = store.get(Kernel, choice.kernel or _newest(Kernel, store, IMPORT_KERNEL))
    return ResolvedTarget(image, kernel, environment=choice.environment)


def resolve_target(choice: TargetChoice, store: Store, progress: Progress = lambda _: None) -> Target:
    """Return the target CHOICE means, ready to be booted; raises what decide() raises."""
    return decide(choice, store).open(store, progress)


IMPORT_IMAGE = "dfly-harness image import NAME --disk FILE --ssh-key FILE"
IMPORT_KERNEL = "dfly-harness kernel import NAME FILE"


def first_commands() -> tuple[str, ...]:
    """Return what a user without a DragonFly target has to do to get one."""
    commands = (
        f"dfly-harness image build 6.4.2 # or {IMPORT_IMAGE.partition(' ')[2]}: a disk that has DragonFly",
        "dfly-harness run --image 6.4.2 --kernel installed",
        f"{IMPORT_KERNEL} # and run --kernel NAME: a kernel of yours, on that image",
    )
    return tuple(map(here, commands))
