# SPDX-License-Identifier: BSD-2-Clause
"""struct kinfo_proc: decoded at the documented offsets, in each era, and on bytes that real kernels have written."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.processes.kinfo import (
    AuxFlag,
    KinfoProc,
    LwpStat,
    ProcFlag,
    ProcStat,
    ProcTable,
    SyscapFlag,
    decode_kinfo,
    decode_rusage,
)

DATA = Path(__file__).parent / "data"

# offsetof() of the seed's sys/kinfo.h, (offset, struct format); what follows kp_login moves by 16 in the 992-byte era.
PROC_OFFSETS = {
    "paddr": (0, "Q"), "flags": (8, "i"), "stat": (12, "i"), "lock": (16, "i"), "acflag": (20, "i"),
    "traceflag": (24, "i"), "fd": (32, "Q"), "sigflag": (88, "i"), "uid": (132, "I"), "ruid": (204, "I"),
    "svuid": (208, "I"), "rgid": (212, "I"), "svgid": (216, "I"), "pid": (220, "i"), "ppid": (224, "i"),
    "pgid": (228, "i"), "jobc": (232, "i"), "sid": (236, "i"),
}  # fmt: skip
LATE_OFFSETS = {
    "tdev": (264, "I"), "tpgid": (268, "i"), "tsid": (272, "i"), "exitstat": (276, "H"), "nthreads": (280, "i"),
    "nice": (284, "i"), "swtime": (288, "I"), "vm_map_size": (296, "Q"), "vm_rssize": (304, "q"),
    "vm_swrss": (312, "q"), "vm_tsize": (320, "q"), "vm_dsize": (328, "q"), "vm_ssize": (336, "q"),
    "vm_prssize": (344, "I"), "jailid": (348, "i"), "auxflags": (640, "i"),
}  # fmt: skip
LWP_OFFSETS = {
    "pid": (0, "i"), "tid": (4, "i"), "flags": (8, "i"), "stat": (12, "i"), "lock": (16, "i"), "tdflags": (20, "i"),
    "mpcount": (24, "i"), "prio": (28, "i"), "tdprio": (32, "i"), "uticks": (40, "Q"), "sticks": (48, "Q"),
    "iticks": (56, "Q"), "cpticks": (64, "Q"), "pctcpu": (72, "I"), "slptime": (76, "I"), "origcpu": (80, "i"),
    "estcpu": (84, "i"), "cpuid": (88, "i"), "wchan": (272, "Q"),
}  # fmt: skip
LWP_AT = 648
ERAS = {960: 0, 976: 0, 992: 16, 1048: 16}  # size -> shift of everything behind kp_login


def value_for(index: int) -> int:
    """Give each field a small value of its own, so that no two can be confused."""
    return 3 + 2 * index


def documented_record(size: int) -> tuple[bytearray, dict[str, int], dict[str, int]]:
    shift = ERAS[size]
    record = bytearray(size)
    proc: dict[str, int] = {}
    lwp: dict[str, int] = {}
    for index, (name, (offset, code)) in enumerate({**PROC_OFFSETS, **LATE_OFFSETS}.items()):
        at = offset + (shift if name in LATE_OFFSETS else 0)
        proc[name] = value_for(index)
        struct.pack_into(f"<{code}", record, at, proc[name])
    for index, (name, (offset, code)) in enumerate(LWP_OFFSETS.items()):
        lwp[name] = value_for(index + 50)
        struct.pack_into(f"<{code}", record, LWP_AT + shift + offset, lwp[name])
    return record, proc, lwp


@pytest.mark.parametrize("size", ERAS)
def test_every_field_is_found_at_its_documented_offset(size: int) -> None:
    record, proc, lwp = documented_record(size)
    (row,) = decode_kinfo(bytes(record), size)
    assert {name: getattr(row, name) for name in proc} == proc
    assert {name: getattr(row.lwp, name) for name in lwp} == lwp
    assert row.record_size == size


@pytest.mark.parametrize("size", ERAS)
def test_texts_sets_and_arrays(size: int) -> None:
    shift = ERAS[size]
    record = bytearray(size)
    record[40:42] = b"\x01\x80"  # kp_siglist: signals 1 and 16
    record[56 + 15] = 0x80  # kp_sigignore: signal 128
    record[72 + 4] = 0x01  # kp_sigcatch: signal 33
    struct.pack_into("<qq", record, 96, 1_500_000_000, 250_000)  # kp_start
    record[112:120] = b"init\0xyz"
    struct.pack_into("<h2x16I", record, 136, 3, 0, 5, 31, *[77] * 13)
    record[240:246] = b"root\0z"
    struct.pack_into("<I", record, 264 + shift, 0xFFFFFFFF)
    lwp = LWP_AT + shift
    record[lwp + 240] = 0x10  # kl_siglist: signal 5
    record[lwp + 256] = 0x20  # kl_sigmask: signal 6
    struct.pack_into("<HH", record, lwp + 36, 1, 20)
    record[lwp + 280 : lwp + 285] = b"wait\0"
    if size > 960:
        record[lwp + 289 : lwp + 294] = b"lwpX\0"
        struct.pack_into("<Q", record, lwp + 312, 0xFFFFF80012345678)
    (row,) = decode_kinfo(bytes(record), size)
    assert (row.siglist, row.sigignore, row.sigcatch) == tuple(map(frozenset, ({1, 16}, {128}, {33})))
    assert row.start == 1_500_000_000.25
    assert (row.comm, row.login, row.groups, row.tdev) == ("init", "root", (0, 5, 31), None)
    assert (row.lwp.siglist, row.lwp.sigmask) == (frozenset({5}), frozenset({6}))
    assert (row.lwp.rtprio, row.lwp.wmesg) == ((1, 20), "wait")
    assert (row.lwp.comm, row.ktaddr) == (("lwpX", 0xFFFFF80012345678) if size > 960 else (None, None))


@pytest.mark.parametrize(("cap", "byte", "bits"), [(0, 984, 0x03), (3, 984, 0x40), (31, 991, 0x80), (32, 992, 0x01),
                                                   (0x19, 990, 0x0C), (255, 1047, 0xC0)])  # fmt: skip
def test_two_bits_tell_how_a_capability_is_restricted(cap: int, byte: int, bits: int) -> None:
    record = bytearray(1048)
    record[byte] = bits
    (row,) = decode_kinfo(bytes(record), 1048)
    state = SyscapFlag(bits >> 2 * (cap % 4) & 3)
    assert state
    assert [row.syscap(other) for other in range(256)] == [state if other == cap else 0 for other in range(256)]


def test_a_capability_that_does_not_exist_has_no_state() -> None:
    (row,) = decode_kinfo(bytes(1048), 1048)
    assert row.syscaps == (0,) * 8
    for cap in (-1, 256):
        with pytest.raises(ValueError, match=rf"capability {cap} is not one of 0\.\.255"):
            row.syscap(cap)


@pytest.mark.parametrize("size", [960, 976, 992])
def test_before_restrictions_existed_nothing_is_said_of_them(size: int) -> None:
    (row,) = decode_kinfo(bytes(size), size)
    assert row.syscaps is None
    with pytest.raises(ValueError, match=f"a record of {size} bytes tells nothing of capability restrictions"):
        row.syscap(0)


@pytest.mark.parametrize(("size", "offset"), [(960, 352), (976, 496), (992, 512), (1048, 512)])
def test_resource_usage_of_the_process_and_of_its_children(size: int, offset: int) -> None:
    record = bytearray(size)
    struct.pack_into("<18q", record, offset, 1, 500_000, 2, 250_000, *range(10, 24))
    (row,) = decode_kinfo(bytes(record), size)
    usage = row.ru if size == 960 else row.cru
    assert (usage.utime, usage.stime, usage.maxrss, usage.nivcsw) == (1.5, 2.25, 10, 23)
    assert usage == decode_rusage(bytes(record[offset : offset + 144]))


def test_an_unknown_size_is_named_together_with_the_known_ones() -> None:
    with pytest.raises(HarnessError, match=r"of 1000 bytes is of no known era \(known: 960, 976, 992, 1048\)"):
        decode_kinfo(bytes(1000), 1000)


def test_half_a_record_is_no_table() -> None:
    with pytest.raises(HarnessError, match="1500 bytes are no multiple of 976"):
        decode_kinfo(bytes(1500), 976)


def test_an_unknown_state_is_kept_as_a_number() -> None:
    record = bytearray(976)
    struct.pack_into("<i", record, 12, 9)
    (row,) = decode_kinfo(bytes(record), 976)
    assert row.stat == 9
    assert not isinstance(row.stat, ProcStat)


@pytest.fixture(params=[976, 992, 1048])
def real_table(request: pytest.FixtureRequest) -> ProcTable:
    """init; a session leader with a terminal and a login name; a zombie that exited with 7; a kernel thread."""
    size = request.param
    return ProcTable(decode_kinfo((DATA / f"kinfo-{size}.bin").read_bytes(), size))


def test_bytes_from_a_real_kernel(real_table: ProcTable) -> None:
    assert len(real_table) == 4
    init = real_table[1]
    assert (init.comm, init.ppid, init.uid, init.sid, init.stat) == ("init", 0, 0, 1, ProcStat.SACTIVE)
    assert init.lwp.stat is LwpStat.LSSLEEP
    assert (init.lwp.wmesg, init.lwp.comm) == ("wait", "init")
    assert init.is_session_leader
    assert not init.has_controlling_tty

    leader, zombie = (real_table[pid] for pid in real_table.pids[1:])
    if zombie.pid < leader.pid:
        leader, zombie = zombie, leader
    assert (leader.login, leader.sid, leader.pgid, leader.tpgid, leader.tsid) == ("alice", *[leader.pid] * 4)
    assert leader.auxflags == AuxFlag.KI_CTTY | AuxFlag.KI_SLEADER
    assert leader.tdev is not None
    assert ProcFlag.P_CONTROLT in leader.flags

    assert zombie.is_zombie
    assert (zombie.exitstat, zombie.nthreads, zombie.fd) == (7 << 8, 0, 0)
    assert zombie.ppid == leader.ppid
    assert ProcFlag.P_WEXIT in zombie.flags

    (idle,) = real_table.kernel_threads
    assert (idle.comm, idle.stat, idle.nthreads, idle.tdev) == ("idle_0", ProcStat.SIDL, 1, None)
    assert idle.lwp.tid == -1
    assert ProcFlag.P_SYSTEM in idle.flags
    assert idle.ktaddr is not None
    assert idle.ktaddr >= 0xFFFF8000_00000000


def test_restrictions_as_a_real_kernel_wrote_them(real_table: ProcTable) -> None:
    """The leader may not reboot; whoever is restricted in anything is marked so in capability 0 (SYSCAP_ANY)."""
    leader = next(row for row in real_table if row.login == "alice")
    if leader.record_size < 1048:
        assert [row.syscaps for row in real_table] == [None] * 4
        return
    restricted = {cap: leader.syscap(cap) for cap in range(256) if leader.syscap(cap)}
    assert restricted == {0: SyscapFlag.SELF, 0x19: SyscapFlag.SELF}
    assert [row.syscaps for row in real_table if row is not leader] == [(0,) * 8] * 3


def test_a_table_is_indexed_by_pid() -> None:
    rows = [KinfoProc(5, comm="a"), KinfoProc(-1, comm="kernel thread"), KinfoProc(7), KinfoProc(5, comm="b")]
    table = ProcTable(rows)
    assert list(table) == rows
    assert len(table) == 4
    assert table.pids == [5, 7, 5]
    assert table[5].comm == "a"
    assert [row.comm for row in table.rows_of(5)] == ["a", "b"]
    assert 7 in table
    assert -1 not in table
    assert 6 not in table
    assert [row.comm for row in table.kernel_threads] == ["kernel thread"]
    with pytest.raises(KeyError):
        table[6]
