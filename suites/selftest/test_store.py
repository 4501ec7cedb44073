# SPDX-License-Identifier: BSD-2-Clause
"""The store keeps its promises: nothing half-written, nothing taken for what it is not, nothing left of the dead."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from harness.cli import main
from harness.errors import DeadlineError, HarnessError, UsageError
from harness.store import Entry, Store
from harness.toolchain import compile_program, damaged_programs


@dataclass(frozen=True)
class Thing(Entry):
    """A record made for these tests."""

    KIND: ClassVar[str] = "thing"
    PLURAL: ClassVar[str] = "kernels"

    content: str = ""

    def blobs(self) -> dict[str, str]:
        """Return the one blob."""
        return {"content": self.content}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def a_file(folder: Path, text: str) -> Path:
    file = folder / "some file"
    file.write_text(text)
    return file


def test_a_blob_is_found_by_its_digest_and_stored_once(store: Store, tmp_path: Path) -> None:
    first = store.add_blob(a_file(tmp_path, "content"))
    second = store.add_blob(a_file(tmp_path, "content"))
    assert first == second
    assert store.blob(first).read_text() == "content"
    assert [blob.name for blob in (store.home / "blobs").iterdir()] == [first]


def test_a_missing_blob_is_an_error_that_says_what_to_do(store: Store) -> None:
    with pytest.raises(HarnessError, match="import it again"):
        store.blob("0" * 64)


def test_a_name_cannot_be_taken_twice(store: Store) -> None:
    store.put(Thing("one"))
    with pytest.raises(UsageError, match="exists already"):
        store.put(Thing("one", content="other"))
    assert store.get(Thing, "one").content == ""


def test_an_unknown_name_is_answered_with_the_known_ones(store: Store) -> None:
    store.put(Thing("one"))
    with pytest.raises(UsageError, match=r"no thing 'two' in the store \(there: one\)"):
        store.get(Thing, "two")


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "a b"])
def test_a_name_that_could_leave_the_store_is_refused(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        store.put(Thing(name))


def test_a_damaged_record_is_reported_and_named(store: Store) -> None:
    store.put(Thing("one"))
    (store.home / "kernels" / "one.json").write_text("{")
    with pytest.raises(HarnessError, match=r"one\.json is damaged"):
        store.get(Thing, "one")


def test_prune_removes_blobs_nobody_refers_to_and_no_others(store: Store, tmp_path: Path) -> None:
    kept = store.add_blob(a_file(tmp_path, "kept"))
    lost = store.add_blob(a_file(tmp_path, "lost!"))
    store.put(Thing("one", content=kept))
    assert store.prune() == len("lost!")
    assert store.blob(kept).exists()
    with pytest.raises(HarnessError):
        store.blob(lost)


def test_verify_finds_a_blob_whose_content_changed(store: Store, tmp_path: Path) -> None:
    good = store.add_blob(a_file(tmp_path, "good"))
    bad = store.add_blob(a_file(tmp_path, "bad"))
    store.blob(bad).chmod(0o644)
    store.blob(bad).write_text("worse")
    assert store.damaged_blobs() == [bad]
    assert good != bad


def test_a_scratch_folder_is_gone_after_an_error(store: Store) -> None:
    with contextlib.suppress(ZeroDivisionError), store.scratch("work") as folder:
        (folder / "file").touch()
        _ = 1 // 0
    assert not folder.exists()


def test_a_folder_is_not_swept_before_its_owner_has_locked_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock
    swept: list[int] = []

    def flock(file: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        swept.append(store.sweep())
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with store.scratch("thing") as folder:
        assert swept == [0]
        assert (folder / ".owner").exists()


def test_a_killed_command_leaves_a_folder_that_the_next_sweep_removes(store: Store) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom harness.store import Store\n"
        "with Store(Path(sys.argv[1])).scratch('work') as folder:\n    print(folder, flush=True)\n    time.sleep(60)\n"
    )
    argv = [sys.executable, "-c", program, str(store.home)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert store.sweep() == 0, "a folder in use must not be swept"
        os.kill(process.pid, signal.SIGKILL)
    assert folder.exists()
    assert store.sweep() == 1
    assert not folder.exists()


def test_a_lock_held_by_another_command_is_waited_for_and_named(store: Store) -> None:
    second = Store(store.home).lock("thing", deadline=0.1)
    begun = time.monotonic()
    with store.lock("thing"), pytest.raises(DeadlineError, match="'thing'"), second:
        pass
    assert time.monotonic() - begun < 10


def test_too_little_space_is_said_before_anything_is_written(store: Store) -> None:
    with pytest.raises(HarnessError, match=r"no room for a whale: .* MiB free"):
        store.require_space(1 << 60, "a whale")


class TestWarmStates:
    """What the store knows about folders in `snapshots`."""

    @staticmethod
    def a_state(store: Store, name: str, *, needs: list[str], ram: bytes = b"memory", **about: str) -> None:
        folder = store.folder("snapshots", name)
        (folder / "ram").write_bytes(ram)
        digests = {"ram": hashlib.sha256(b"memory").hexdigest()}
        (folder / "warm.json").write_text(json.dumps({"needs": needs, "digests": digests, **about}))

    def test_prune_removes_those_whose_disk_or_kernel_is_gone(self, store: Store, tmp_path: Path) -> None:
        kept = store.add_blob(a_file(tmp_path, "kept"))
        store.put(Thing("one", content=kept))
        self.a_state(store, "needed", needs=[kept])
        self.a_state(store, "orphan", needs=[kept, "0" * 64])
        assert store.prune() > len(b"memory")
        assert [folder.name for folder in store.folder("snapshots").iterdir()] == ["needed"]

    def test_prune_removes_recordings_that_begin_in_such_a_state(self, store: Store, tmp_path: Path) -> None:
        kept = store.add_blob(a_file(tmp_path, "kept"))
        store.put(Thing("one", content=kept))
        for name, needs in (("needed", [kept]), ("orphan", ["0" * 64])):
            self.a_state(store, name, needs=needs)
            folder = store.folder("recordings", f"of-{name}")
            os.link(store.home / "snapshots" / name / "warm.json", folder / "warm.json")
        store.prune()
        assert [folder.name for folder in store.folder("recordings").iterdir()] == ["of-needed"]

    def test_prune_removes_those_of_another_qemu(self, store: Store) -> None:
        self.a_state(store, "old", needs=[], qemu="6.0")
        self.a_state(store, "new", needs=[], qemu="7.2")
        store.prune(qemu="7.2")
        assert [folder.name for folder in store.folder("snapshots").iterdir()] == ["new"]

    def test_prune_removes_those_of_another_format(self, store: Store) -> None:
        self.a_state(store, "older", needs=[], format="1")
        self.a_state(store, "oldest", needs=[])
        self.a_state(store, "new", needs=[], format="2")
        store.prune()
        assert len(list(store.folder("snapshots").iterdir())) == 3
        store.prune(state_format="2")
        assert [folder.name for folder in store.folder("snapshots").iterdir()] == ["new"]

    def test_verify_finds_damaged_memory_and_a_thorough_prune_removes_it(self, store: Store) -> None:
        self.a_state(store, "good", needs=[])
        self.a_state(store, "bad", needs=[], ram=b"memorx")
        store.folder("snapshots", "half")
        assert store.damaged_snapshots() == ["bad", "half"]
        store.prune(thorough=True)
        assert [folder.name for folder in store.folder("snapshots").iterdir()] == ["good"]

    def test_prune_waits_for_a_state_that_is_being_made(self, store: Store) -> None:
        self.a_state(store, "busy", needs=["0" * 64])
        with store.lock("snapshot-busy"):
            store.prune()
        assert (store.home / "snapshots" / "busy").exists()


def test_prune_waits_for_an_import_between_blob_and_record(store: Store, tmp_path: Path) -> None:
    import threading

    with store.adding():
        pruner = threading.Thread(target=store.prune)
        pruner.start()
        blob = store.add_blob(a_file(tmp_path, "new"))
        pruner.join(0.3)
        assert pruner.is_alive()
        store.put(Thing("one", content=blob))
    pruner.join(10)
    assert store.blob(blob).read_text() == "new"


def test_prune_touches_nothing_while_a_record_cannot_be_read(store: Store, tmp_path: Path) -> None:
    blob = store.add_blob(a_file(tmp_path, "precious"))
    store.put(Thing("one", content=blob))
    (store.home / "kernels" / "one.json").write_text("{")
    with pytest.raises(HarnessError, match=r"one\.json is damaged: nothing is pruned"):
        store.prune()
    assert store.blob(blob).exists()


@pytest.mark.parametrize("content", [b"", b"\x7fELF and then nothing"])
def test_a_compiled_program_that_is_not_as_it_was_made_is_made_again(tmp_path: Path, content: bytes) -> None:
    source, cache = tmp_path / "one.c", tmp_path / "cache"
    source.write_text("int main(void) { return 0; }\n")
    program = compile_program("one", [source], [], cache)
    made = program.read_bytes()
    assert damaged_programs(cache) == []
    program.write_bytes(content)
    assert damaged_programs(cache) == [program]
    assert compile_program("one", [source], [], cache) == program
    assert program.read_bytes() == made
    assert damaged_programs(cache) == []


def test_verify_names_what_is_damaged_in_the_cache_and_prune_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "store"))
    cache = Store().cache
    source = tmp_path / "one.c"
    source.write_text("int main(void) { return 0; }\n")
    program = compile_program("one", [source], [], cache)
    (cache / "control").mkdir()
    recipe = cache / "control" / "recipe-0123"
    recipe.touch()
    program.write_bytes(b"")
    assert main(["store", "verify"]) == 3
    said = capsys.readouterr().out
    assert f"damaged: {program};" in said
    assert f"damaged: {recipe};" in said
    assert main(["store", "prune"]) == 0
    assert main(["store", "verify"]) == 0
    assert not program.exists()
    assert not recipe.exists()
