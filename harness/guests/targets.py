"""Which target a command is about, from the names a user gives, or the store's newest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import UsageError
from harness.guests.control import ControlTarget
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import Progress, Target
from harness.guests.installed import InstalledTarget
from harness.images.base import BaseImage
from harness.images.control import build_control_image
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


def resolve_target(choice: TargetChoice, store: Store, progress: Progress = lambda _: None) -> Target:
    """Return the target CHOICE means; where it is silent, the image and kernel imported last.

    Without a word and without a DragonFly image in the store this is the control guest, which is put together first if
    need be.  Raises UsageError for unknown names and contradictions.
    """
    named = choice.image is not None or choice.kernel is not None
    if choice.control and named:
        raise UsageError("--control is a target of its own: leave out --image and --kernel, or leave out --control")
    if choice.control or not (named or has_dragonfly(store)):
        return ControlTarget(build_control_image(store.cache, progress))
    image = store.get(BaseImage, choice.image or _newest(BaseImage, store, IMPORT_IMAGE))
    if choice.kernel == INSTALLED and image.installed_kernel:
        return InstalledTarget(image, store.get(Kernel, image.installed_kernel), store, choice.environment)
    if choice.kernel == INSTALLED:
        return DragonFlyTarget(image, None, store, choice.environment)
    kernel = store.get(Kernel, choice.kernel or _newest(Kernel, store, IMPORT_KERNEL))
    return DragonFlyTarget(image, kernel, store, choice.environment)


IMPORT_IMAGE = "dfly-harness image import NAME --disk FILE --ssh-key FILE"
IMPORT_KERNEL = "dfly-harness kernel import NAME FILE"

#: What a user without a DragonFly target has to do to get one.
THREE_COMMANDS = ("dfly-harness image build 6.4.2", IMPORT_KERNEL, "dfly-harness run --image 6.4.2 --kernel NAME")
