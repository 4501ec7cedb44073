# SPDX-License-Identifier: BSD-2-Clause
"""A kernel that came after this harness: said once, in one line, and nobody boots it again for that."""

from __future__ import annotations

import pytest
from scripted_kernel import HUB_PID, ScriptedKernel

from harness.errors import HarnessError, UnknownKernelError
from harness.processes.session import Session, Snapshot, Warmth

VERSION, OSRELDATE = (1, 4), (1, 24)


def kernel_of(size: int) -> ScriptedKernel:
    return ScriptedKernel(
        variables={
            (1, 14, 1, HUB_PID): bytes(size),
            (1, 14, 0): bytes(3 * size),
            VERSION: b"DragonFly v6.9.0.17.gabcdef-DEVELOPMENT #3: Mon Jan  1\n    root@here:/usr/obj\n\0",
            OSRELDATE: (600999).to_bytes(4, "little"),
        },
        names={"kern.version": VERSION, "kern.osreldate": OSRELDATE},
    )


def test_a_record_nobody_knows_is_said_with_the_kernels_version_and_what_to_report() -> None:
    with kernel_of(1112).hub() as hub, pytest.raises(UnknownKernelError) as caught:
        hub.observer.sysctl.kern_proc_all()
    assert str(caught.value) == (
        "this harness does not know DragonFly v6.9.0.17.gabcdef-DEVELOPMENT #3: Mon Jan  1 (600999): its struct"
        " kinfo_proc has 1112 bytes (known: 960, 976, 992, 1048); report these numbers, with sys/sys/kinfo.h of that"
        " kernel's sources"
    )


@pytest.mark.parametrize("size", [960, 976, 992, 1048])
def test_a_known_one_is_decoded(size: int) -> None:
    with kernel_of(size).hub() as hub:
        assert [row.record_size for row in hub.observer.sysctl.kern_proc_all()] == [size] * 3


class Given(Warmth):
    """A warm state that is only talked about."""

    def __init__(self) -> None:
        self.failures = 0
        self.forgotten = 0

    def snapshot(self, progress: object = None) -> Snapshot:  # noqa: ARG002
        return None  # type: ignore[return-value]

    def forget(self, snapshot: Snapshot) -> None:  # noqa: ARG002
        self.forgotten += 1


@pytest.mark.parametrize(
    ("error", "attempts", "forgotten"), [(UnknownKernelError("unknown"), 1, 0), (HarnessError("damaged"), 3, 1)]
)
def test_it_is_not_taken_for_a_broken_warm_state(
    monkeypatch: pytest.MonkeyPatch, error: HarnessError, attempts: int, forgotten: int
) -> None:
    tried: list[Warmth] = []

    def fail(warmth: Warmth, _snapshot: Snapshot) -> Session:
        tried.append(warmth)
        raise error

    monkeypatch.setattr(Session, "_from_snapshot", fail)
    said: list[str] = []
    warmth = Given()
    with pytest.raises(type(error)):
        Session.resume(warmth, said.append)
    assert (len(tried), warmth.forgotten, warmth.failures) == (attempts, forgotten, attempts - 1)
    assert len(said) == attempts - 1
