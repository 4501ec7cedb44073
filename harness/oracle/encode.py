"""struct kinfo_proc of the seed (976 bytes) as bytes: the inverse of harness.processes.kinfo.decode_kinfo()."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import astuple

from harness.processes.kinfo import KinfoLwp, KinfoProc
from harness.processes.vocabulary import Rusage

RECORD_SIZE = 976
NO_DEVICE = 0xFFFFFFFF  # NOUDEV
LWP_AT, KTADDR_AT = 648, 960

# sys/kinfo.h, on x86_64.
_PROC = struct.Struct("<Qiiiii4xQ16s16s16si4xqq17s3xIh2x16I4I5i24sIiiH2xiiI4xQ5qIi144s144si4x")
_LWP = struct.Struct("<9i2H4Q2I3i4x144s16s16sQ9s17s")
_RUSAGE = struct.Struct("<18q")


def encode_kinfo(rows: Iterable[KinfoProc]) -> bytes:
    """Return ROWS as the kernel would copy them out."""
    return b"".join(map(_encode, rows))


def _encode(row: KinfoProc) -> bytes:
    record = bytearray(RECORD_SIZE)
    groups = (*row.groups, *[0] * (16 - len(row.groups)))
    _PROC.pack_into(
        record, 0,
        row.paddr, row.flags, row.stat, row.lock, row.acflag, row.traceflag, row.fd,
        _signal_set(row.siglist), _signal_set(row.sigignore), _signal_set(row.sigcatch), row.sigflag,
        int(row.start), round(row.start % 1 * 1e6), row.comm.encode(),
        row.uid, len(row.groups), *groups, row.ruid, row.svuid, row.rgid, row.svgid,
        row.pid, row.ppid, row.pgid, row.jobc, row.sid, row.login.encode(),
        NO_DEVICE if row.tdev is None else row.tdev, row.tpgid, row.tsid, row.exitstat, row.nthreads, row.nice,
        row.swtime,
        row.vm_map_size, row.vm_rssize, row.vm_swrss, row.vm_tsize, row.vm_dsize, row.vm_ssize, row.vm_prssize,
        row.jailid, _rusage(row.ru), _rusage(row.cru), row.auxflags,
    )  # fmt: skip
    _encode_lwp(record, row.lwp)
    struct.pack_into("<Q", record, KTADDR_AT, row.ktaddr or 0)
    return bytes(record)


def _encode_lwp(record: bytearray, lwp: KinfoLwp) -> None:
    _LWP.pack_into(
        record, LWP_AT,
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
