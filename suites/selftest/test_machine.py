# SPDX-License-Identifier: BSD-2-Clause
"""Machines start, stop, pause, save and resume; and nothing is left of them, however they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import DeadlineError, GuestLostError, HarnessError, UsageError
from harness.machine import qemu
from harness.machine.description import Disk, DiskFormat, DiskModel, MachineDescription
from harness.machine.gdbstub import GdbStub
from harness.machine.qemu import Machine, MachineState, qemu_img
from harness.store import Store

pytestmark = pytest.mark.on_vm

SMALL = MachineDescription(memory=128)
PLACE = 0x4000000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    file = tmp_path / "a, disk.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", str(file), "1M")
    return Disk(file)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter from a process that was reaped while it was read
        return False


def leftovers(store: Store) -> list[str]:
    return [folder.name for folder in store.folder("run").iterdir()]


def test_a_machine_runs_until_it_is_stopped_and_leaves_nothing(store: Store, disk: Disk) -> None:
    with Machine(SMALL.with_disks([disk]), store) as machine:
        machine.start()
        assert machine.monitor.execute("query-status")["status"] == "running"
        pid = machine.pid
        assert pid is not None
        assert machine.gdb_socket.is_socket()
        assert not machine.was_stopped
    assert machine.was_stopped
    assert machine.pid is None
    assert not is_running(pid)
    assert leftovers(store) == []


def test_pause_stands_still_and_resume_goes_on(store: Store) -> None:
    with Machine(SMALL, store) as machine:
        machine.start()
        machine.pause()
        assert machine.monitor.execute("query-status")["running"] is False
        machine.resume()
        assert machine.monitor.execute("query-status")["running"] is True


def test_two_machines_get_different_ports_that_are_on_loopback_only(store: Store) -> None:
    with Machine(SMALL, store) as one, Machine(SMALL, store) as two:
        one.start()
        two.start()
        assert one.host_port(22) != two.host_port(22)
        tables = [Path("/proc/net") / name for name in ("tcp", "tcp6")]
        lines = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
        places = [local.rpartition(":") for _, local, _, state, *_ in lines if state == "0A"]  # listens
        bound = [address for address, _, port in places if int(port, 16) == one.host_port(22)]
        assert bound == [socket.inet_aton("127.0.0.1")[::-1].hex().upper()]


def test_a_port_that_is_not_forwarded_is_an_error(store: Store) -> None:
    with Machine(SMALL, store) as machine:
        machine.start()
        with pytest.raises(HarnessError, match="forwards no port"):
            machine.host_port(80)


def test_writes_go_to_an_overlay_and_the_disk_stays_as_it_is(store: Store, disk: Disk) -> None:
    before = disk.file.read_bytes()
    with Machine(SMALL.with_disks([disk]), store) as machine:
        machine.start()
        machine.monitor.human('qemu-io disk0 "write -P 7 0 64k"')
    assert disk.file.read_bytes() == before


def test_a_saved_machine_resumes_with_its_memory_and_its_disk(store: Store, disk: Disk, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    with Machine(SMALL.with_disks([disk]), store) as machine:
        machine.start(paused=True)
        machine.monitor.human('qemu-io disk0 "write -P 7 0 512"')
        memory = machine.read_physical(0xF0000, 4096)
        state = machine.save(folder)
    for _ in range(2):  # a state can be resumed any number of times
        with Machine(SMALL, store) as again:
            again.start(state, paused=True)
            assert again.read_physical(0xF0000, 4096) == memory
            # qemu-io reports a pattern that is not what it should be on QEMU's standard output.
            again.monitor.human('qemu-io disk0 "read -P 7 0 512"')
            assert "Pattern verification failed" not in (again.folder / "qemu.log").read_text()
            again.monitor.human('qemu-io disk0 "read -P 8 0 512"')
            assert "Pattern verification failed" in (again.folder / "qemu.log").read_text()
    assert leftovers(store) == []


class TestLasting:
    """Machines whose memory is a file: what they save is mapped by those that go on from there, not read."""

    @pytest.fixture
    def state(self, store: Store) -> MachineState:
        with Machine(replace(SMALL, lasting=True), store) as machine:
            machine.start(paused=True)
            write(machine, b"template")
            return machine.save(store.folder("saved"))

    def test_its_memory_is_beside_its_devices_and_has_holes(self, state: MachineState, store: Store) -> None:
        assert {file.name for file in state.files} == {"ram", "memory"}
        assert state.ram.stat().st_size < 1 << 20
        about = state.memory.stat()
        assert about.st_size == SMALL.memory << 20
        assert about.st_blocks * 512 < about.st_size / 2
        assert leftovers(store) == []

    def test_what_one_writes_neither_the_others_nor_the_state_see(self, state: MachineState, store: Store) -> None:
        with Machine(SMALL, store) as one, Machine(SMALL, store) as two:
            one.start(state, paused=True)
            assert one.read_physical(PLACE, 8) == b"template"
            write(one, b"one's   ")
            two.start(state, paused=True)
            assert two.read_physical(PLACE, 8) == b"template"
        assert state.memory.read_bytes()[PLACE : PLACE + 8] == b"template"

    def test_one_that_goes_on_from_it_can_be_saved_in_the_usual_way(self, state: MachineState, store: Store) -> None:
        with Machine(SMALL, store) as machine:
            machine.start(state, paused=True)
            write(machine, b"changed ")
            later = machine.save(store.folder("later"))
        assert [file.name for file in later.files] == ["ram"]
        with Machine(SMALL, store) as machine:
            machine.start(later, paused=True)
            assert machine.read_physical(PLACE, 8) == b"changed "

    def test_one_that_spends_it_is_lasting_itself(self, state: MachineState, store: Store) -> None:
        with Machine(SMALL, store) as machine:
            machine.start(state, paused=True, spend=True)
            assert not state.memory.exists()
            write(machine, b"changed ")
            later = machine.save(store.folder("later"))
        assert later.memory.read_bytes()[PLACE : PLACE + 8] == b"changed "

    def test_where_qemu_cannot_all_of_it_is_in_one_file(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(qemu, "_LEAVES_MEMORY_OUT", "x-no-such-capability")
        with Machine(replace(SMALL, lasting=True), store) as machine:
            machine.start(paused=True)
            write(machine, b"template")
            state = machine.save(store.folder("saved"))
        assert [file.name for file in state.files] == ["ram"]
        with Machine(SMALL, store) as machine:
            machine.start(state, paused=True)
            assert machine.read_physical(PLACE, 8) == b"template"


def write(machine: Machine, data: bytes) -> None:
    """Write DATA where the firmware has no business; the first CPU translates no addresses yet."""
    with GdbStub(machine.gdb_socket) as stub:
        stub.write(PLACE, data)
    machine.pause()


def test_a_state_that_is_damaged_is_refused(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    with Machine(SMALL, store) as machine:
        machine.start(paused=True)
        state = machine.save(folder)
    state.ram.write_bytes(state.ram.read_bytes()[:1000])
    with Machine(SMALL, store) as again, pytest.raises(HarnessError):
        again.start(state)
    assert leftovers(store) == []


def test_a_missing_disk_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"disk .*nowhere.* does not exist"):
        Machine(SMALL.with_disks([Disk(tmp_path / "nowhere")]), store).start()
    assert leftovers(store) == []


def test_a_disk_that_is_no_qcow2_is_refused(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("not a disk")
    with pytest.raises(HarnessError, match=r"disk .*text cannot be used"):
        Machine(SMALL.with_disks([Disk(file, DiskFormat.QCOW2)]), store).start()
    assert leftovers(store) == []


def test_a_port_that_is_taken_is_named(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 is taken"):
            Machine(MachineDescription(memory=128, ssh_port=port), store).start()
    assert leftovers(store) == []


def test_qemu_that_is_not_installed_is_said_with_the_package(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HarnessError, match=r"not installed.*apt-get install qemu-system-x86"):
        Machine(SMALL, store).start()


def test_qemu_that_refuses_its_arguments_is_quoted(store: Store) -> None:
    with pytest.raises(HarnessError, match=r"QEMU did not start: .*no-such-cpu"):
        Machine(MachineDescription(memory=128, cpu="no-such-cpu"), store).start()
    assert leftovers(store) == []


@pytest.mark.parametrize(
    ("said", "quoted"),
    [
        ("qemu-system-x86_64: no such thing\nqemu-system-x86_64: warning: -x is deprecated", "no such thing"),
        ("qemu-system-x86_64: -x y: warning: use -z\nqemu-system-x86_64: -a b: refused\n", "-a b: refused"),
        ("warning: TCG lacks a feature\ninfo: as always", "it said nothing"),
    ],
)
def test_what_qemu_warned_of_is_not_taken_for_why_it_ended(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, quoted: str
) -> None:
    qemu = tmp_path / "bin" / "qemu-system-x86_64"
    qemu.parent.mkdir()
    qemu.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\nexit 1\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{qemu.parent}:{os.environ['PATH']}")
    with pytest.raises(HarnessError) as told:
        Machine(SMALL, store).start()
    assert str(told.value) == f"QEMU did not start: {quoted}"


def test_a_machine_killed_from_outside_is_noticed(store: Store) -> None:
    with Machine(SMALL, store) as machine:
        machine.start()
        assert machine.pid is not None
        os.kill(machine.pid, signal.SIGKILL)
        assert machine._process is not None
        machine._process.wait()
        with pytest.raises(GuestLostError, match="killed by signal 9"):
            machine.check()
        assert not machine.was_stopped
        with pytest.raises(GuestLostError):
            machine.pause()
    assert leftovers(store) == []


# A job in the background of a shell script is born with Ctrl-C ignored.
_PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from dataclasses import replace
from pathlib import Path
from harness.machine.description import MachineDescription
from harness.machine.qemu import Machine
from harness.store import Store
machine = Machine(MachineDescription(memory=128), Store(Path(sys.argv[1])))
{start}
print(machine.pid, flush=True)
{then}
"""


_IN_A_THREAD = """
import threading
thread = threading.Thread(target=machine.start)
thread.start()
thread.join()  # its end is not the machine's
machine.check()
"""


@pytest.mark.parametrize("start", ["machine.start()", _IN_A_THREAD], ids=["main", "thread"])
@pytest.mark.parametrize(
    ("then", "signals"),
    [
        ("", ()),
        ("raise RuntimeError", ()),
        ("sys.exit(3)", ()),
        ("time.sleep(60)", (signal.SIGINT,)),
        ("time.sleep(60)", (signal.SIGKILL,)),
    ],
    ids=["end of program", "exception", "exit", "Ctrl-C", "killed outright"],
)
def test_no_machine_outlives_the_program_that_made_it(
    store: Store, start: str, then: str, signals: tuple[int, ...]
) -> None:
    argv = [sys.executable, "-c", _PROGRAM.format(start=start, then=then), str(store.home)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        for number in signals:
            program.send_signal(number)
        program.wait(60)
        # A kill takes QEMU with it through the kernel; that the process table says so may take an instant.
        for _ in range(6000):
            if not is_running(pid):
                break
            select_instant()
    assert not is_running(pid)
    if signal.SIGKILL in signals:
        store.sweep()
    assert leftovers(store) == []


def select_instant() -> None:
    """Give way for 10 ms, for an event that nothing announces to us: the end of somebody else's child."""
    signal.sigtimedwait([], 0.01)


def test_the_installed_qemu_has_a_version() -> None:
    assert qemu.qemu_version()[0].isdigit()


class TestAttaching:
    """Disks and CDs on QEMU's command line; QEMU itself says whether it likes them."""

    @pytest.mark.parametrize("model", list(DiskModel))
    def test_every_disk_model_is_one_that_qemu_takes(self, store: Store, tmp_path: Path, model: DiskModel) -> None:
        file = tmp_path / "a,disk.img"
        file.write_bytes(bytes(1 << 20))
        disks = [Disk(file, DiskFormat.RAW, model), Disk(file, DiskFormat.RAW, model)]
        with Machine(SMALL.with_disks(disks), store) as machine:
            machine.start(paused=True)
            shown = machine.monitor.human("info block")
        assert "disk0" in shown
        assert "disk1" in shown

    def test_a_writable_disk_is_written_to_itself(self, store: Store, tmp_path: Path) -> None:
        file = tmp_path / "disk.img"
        file.write_bytes(bytes(1 << 20))
        with Machine(SMALL.with_disks([Disk(file, DiskFormat.RAW, writable=True)]), store) as machine:
            machine.start(paused=True)
            assert str(file) in machine.monitor.human("info block")
            assert not list(machine.folder.glob("disk*.qcow2"))

    def test_cds_are_read_only_and_the_first_is_booted_from(self, store: Store, tmp_path: Path) -> None:
        discs = []
        for number in range(2):
            disc = tmp_path / f"cd{number}.iso"
            disc.write_bytes(bytes(1 << 20))
            disc.chmod(0o444)
            discs.append(disc)
        description = replace(SMALL, cdroms=tuple(discs))
        with Machine(description, store) as machine:
            machine.start(paused=True)
            shown = machine.monitor.human("info block")
        assert shown.count("read-only") == 2
        line = description.command_line()
        assert "drive=cd0,bus=ide.1,unit=0,bootindex=0" in line
        assert "drive=cd1,bus=ide.1,unit=1" in line

    def test_a_machine_that_switches_itself_off_has_ended_well(self, store: Store) -> None:
        with Machine(SMALL, store) as machine:
            machine.start(paused=True)
            with pytest.raises(DeadlineError, match="the machine to switch itself off"):
                machine.await_end(0.1)
            machine.monitor.execute("quit")
            machine.await_end(60)

    def test_a_machine_that_was_killed_has_not(self, store: Store) -> None:
        with Machine(SMALL, store) as machine:
            machine.start(paused=True)
            assert machine.pid is not None
            os.kill(machine.pid, signal.SIGKILL)
            with pytest.raises(GuestLostError, match="killed by signal 9"):
                machine.await_end(60)


def test_the_version_is_asked_for_once_and_again_when_qemu_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, asked = tmp_path / qemu.QEMU, tmp_path / "asked"

    def install(version: str) -> None:
        program.write_text(f"#!/bin/sh\necho x >> {asked}\necho QEMU emulator version {version}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    install("7.2.0")
    assert [qemu.qemu_version() for _ in range(3)] == ["7.2.0"] * 3
    assert asked.read_text() == "x\n"
    install("10.0.11")
    assert qemu.qemu_version() == "10.0.11"
