"""Which accelerator works on this host: found out by running a guest under each, not by looking for /dev/kvm."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.errors import HarnessError
from harness.machine.description import Accelerator
from harness.machine.directboot import build_program

# What the probe says and how it ends when all went well (bootstub/probe64.S).
_MESSAGE = b"dfly-harness probe: 64-bit mode reached"
_EXIT_STATUS = 0x55 << 1 | 1

# The probe takes less than 0.1 s.  A working accelerator may be slow on a busy host; a hanging one costs all of this,
# once.  TCG does not hang, so it may take its time.
_DEADLINE = 3.0
_TCG_DEADLINE = 30.0
_KILL_DEADLINE = 5.0


@dataclass(frozen=True)
class AcceleratorVerdict:
    """Whether a guest ran under ACCELERATOR, how long that took in seconds, and in words what happened."""

    accelerator: Accelerator
    usable: bool
    reason: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.accelerator.value}: {self.reason}"


def probe_accelerators(
    qemu: Path | str,
    cache: Path,
    candidates: Sequence[Accelerator] = tuple(Accelerator),
    *,
    deadline: float = _DEADLINE,
) -> tuple[AcceleratorVerdict, ...]:
    """Run a small guest under each of CANDIDATES and return a verdict on each, in their order.

    A guest that has not ended after DEADLINE seconds is killed (TCG is given 30 s).  Verdicts are kept in CACHE for as
    long as QEMU, the host's kernel and /dev/kvm stay the same, so an accelerator that hangs costs its seconds once;
    refusals, whose cause may pass, are not kept.
    Raises HarnessError when QEMU cannot be started at all or the probe cannot be built.
    """
    probe = build_program("accelprobe", ("probe.c", "probe64.S"), cache)
    host = _host_identity(qemu, probe)
    file = cache / "accelerators.json"
    # The lock is held while probing: parallel workers must not each wait for the same accelerator to hang.
    with FileLock(cache / "accelerators.lock"):
        known = _load(file, host)
        kept = dict(known)
        missing = [candidate for candidate in candidates if candidate not in known]
        for candidate in missing:
            limit = max(deadline, _TCG_DEADLINE) if candidate is Accelerator.TCG else deadline
            known[candidate] = found = _probe(str(qemu), probe, candidate, limit)
            if found.usable or found.seconds >= limit:
                kept[candidate] = found
        if missing:
            _save(file, host, list(kept.values()))
    return tuple(known[candidate] for candidate in candidates)


def best_accelerator(
    qemu: Path | str,
    cache: Path,
    candidates: Sequence[Accelerator] = tuple(Accelerator),
    *,
    deadline: float = _DEADLINE,
) -> Accelerator:
    """Return the first of CANDIDATES, which go from fast to slow, under which a guest runs; see probe_accelerators().

    Raises HarnessError with the reason for each when none does.
    """
    verdicts = probe_accelerators(qemu, cache, candidates, deadline=deadline)
    for verdict in verdicts:
        if verdict.usable:
            return verdict.accelerator
    raise HarnessError("no accelerator runs guests on this host: " + "; ".join(map(str, verdicts)))


def _probe(qemu: str, probe: Path, accelerator: Accelerator, deadline: float) -> AcceleratorVerdict:
    argv = [
        qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "pc",
        "-accel", accelerator.value, "-m", "128", "-serial", "stdio",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-kernel", str(probe),
    ]  # fmt: skip
    begin = time.monotonic()
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is for us to handle
    )
    try:
        output, complaints = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        reason = f"{_existing(accelerator)}the probe hung for {deadline:g} s{_end(process)}"
        return AcceleratorVerdict(accelerator, usable=False, reason=reason, seconds=time.monotonic() - begin)
    except BaseException:
        _end(process)
        raise
    seconds = time.monotonic() - begin
    if process.returncode == _EXIT_STATUS and _MESSAGE in output:
        return AcceleratorVerdict(accelerator, usable=True, reason=f"the probe ran in {seconds:.1f} s", seconds=seconds)
    said = (output + complaints).decode(errors="replace").strip().rpartition("\n")[2].strip()
    how = f"was killed by signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}"
    reason = f"the probe did not run ({said.removeprefix(f'{qemu}: ') or f'QEMU said nothing, {how}'})"
    return AcceleratorVerdict(accelerator, usable=False, reason=reason, seconds=seconds)


def _existing(accelerator: Accelerator) -> str:
    """Say what makes a hang surprising."""
    return "/dev/kvm opens but " if accelerator is Accelerator.KVM and os.access("/dev/kvm", os.R_OK | os.W_OK) else ""


def _end(process: subprocess.Popen[bytes]) -> str:
    """Kill and reap PROCESS; return what to add to the verdict if even that does not work."""
    process.kill()
    try:
        process.communicate(timeout=_KILL_DEADLINE)
    except subprocess.TimeoutExpired:
        return f" and cannot be killed (process {process.pid})"
    return ""


def _host_identity(qemu: Path | str, probe: Path) -> dict[str, Any]:
    """Return what a verdict depends on: QEMU, the probe, the host's kernel, and who may open which /dev/kvm."""
    try:
        shown = subprocess.run([str(qemu), "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise HarnessError(f"{qemu} cannot be started: {error}") from error
    try:
        kvm = os.stat("/dev/kvm")
    except OSError:
        device = None
    else:
        usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
        # The inode and its time are new after each boot of the host, which may have loaded another KVM module.
        device = [kvm.st_rdev, kvm.st_mode, kvm.st_uid, kvm.st_gid, kvm.st_ino, kvm.st_ctime_ns, usable]
    return {
        "qemu": [str(qemu), shown.partition("\n")[0]],
        "probe": probe.name,
        "kernel": [platform.system(), platform.release(), platform.machine()],
        "kvm": device,
    }


def _load(file: Path, host: dict[str, Any]) -> dict[Accelerator, AcceleratorVerdict]:
    try:
        saved = json.loads(file.read_text())
        if saved["host"] != host:
            return {}
        verdicts = [
            AcceleratorVerdict(
                Accelerator(entry["accelerator"]), bool(entry["usable"]), str(entry["reason"]), float(entry["seconds"])
            )
            for entry in saved["verdicts"]
        ]
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: probe again
        return {}
    return {verdict.accelerator: verdict for verdict in verdicts}


def _save(file: Path, host: dict[str, Any], verdicts: Sequence[AcceleratorVerdict]) -> None:
    content = {"host": host, "verdicts": [asdict(verdict) for verdict in verdicts]}
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(content, indent=2) + "\n")
    draft.replace(file)
