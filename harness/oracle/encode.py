# SPDX-License-Identifier: BSD-2-Clause
"""struct kinfo_proc as bytes, by its size: the inverse of harness.processes.kinfo.decode_kinfo()."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import astuple

from harness.processes.kinfo import LAYOUTS, KinfoLwp, KinfoProc
from harness.processes.vocabulary import Rusage

NO_DEVICE = 0xFFFFFFFF  # NOUDEV

# sys/kinfo.h, on x86_64: up to kp_sid, and from kp_tdev on.
_HEAD = struct.Struct("<Qiiiii4xQ16s16s16si4xqq17s3xIh2x16I4I5i")
_MIDDLE = struct.Struct("<IiiH2xiiI4xQ5qIi144s144si4x")
_LWP = struct.Struct("<9i2H4Q2I3i4x144s16s16sQ9s17s")
_RUSAGE = struct.Struct("<18q")


def encode_kinfo(rows: Iterable[KinfoProc]) -> bytes:
    """Return ROWS as the kernel would copy them out."""
    return b"".join(map(_encode, rows))


def _encode(row: KinfoProc) -> bytes:
    layout = LAYOUTS[row.record_size]
    record = bytearray(row.record_size)
    groups = (*row.groups, *[0] * (16 - len(row.groups)))
    _HEAD.pack_into(
        record, 0,
        row.paddr, row.flags, row.stat, row.lock, row.acflag, row.traceflag, row.fd,
        _signal_set(row.siglist), _signal_set(row.sigignore), _signal_set(row.sigcatch), row.sigflag,
        int(row.start), round(row.start % 1 * 1e6), row.comm.encode(),
        row.uid, len(row.groups), *groups, row.ruid, row.svuid, row.rgid, row.svgid,
        row.pid, row.ppid, row.pgid, row.jobc, row.sid,
    )  # fmt: skip
    struct.pack_into(f"{layout.login}s", record, _HEAD.size, row.login.encode())
    middle_at = _HEAD.size + layout.login
    _MIDDLE.pack_into(
        record, middle_at,
        NO_DEVICE if row.tdev is None else row.tdev, row.tpgid, row.tsid, row.exitstat, row.nthreads, row.nice,
        row.swtime,
        row.vm_map_size, row.vm_rssize, row.vm_swrss, row.vm_tsize, row.vm_dsize, row.vm_ssize, row.vm_prssize,
        row.jailid, _rusage(row.ru), _rusage(row.cru), row.auxflags,
    )  # fmt: skip
    lwp_at = middle_at + _MIDDLE.size
    _encode_lwp(record, lwp_at, row.lwp)
    struct.pack_into("<Q", record, lwp_at + layout.lwp, row.ktaddr or 0)
    if row.syscaps is not None:
        struct.pack_into(f"<{layout.syscaps}Q", record, lwp_at + layout.lwp + 8, *row.syscaps)
    return bytes(record)


def _encode_lwp(record: bytearray, at: int, lwp: KinfoLwp) -> None:
    _LWP.pack_into(
        record, at,
        lwp.pid, lwp.tid, lwp.flags, lwp.stat, lwp.lock, lwp.tdflags, lwp.mpcount, lwp.prio, lwp.tdprio, *lwp.rtprio,
        lwp.uticks, lwp.sticks, lwp.iticks, lwp.cpticks, lwp.pctcpu, lwp.slptime, lwp.origcpu, lwp.estcpu, lwp.cpuid,
        _rusage(lwp.ru), _signal_set(lwp.siglist), _signal_set(lwp.sigmask), lwp.wchan, lwp.wmesg.encode(),
        (lwp.comm or "").encode(),
    )  # fmt: skip


def _signal_set(signals: Iterable[int]) -> bytes:
    return sum(1 << (number - 1) for number in signals).to_bytes(16, "little")


def _rusage(usage: Rusage) -> bytes:
    utime, stime, *counts = astuple(usage)
    times = [part for time in (utime, stime) for part in (int(time), round(time % 1 * 1e6))]
    return _RUSAGE.pack(*times, *counts)
