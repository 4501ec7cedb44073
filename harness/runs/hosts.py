# SPDX-License-Identifier: BSD-2-Clause
"""Slots on other hosts: the same run, made by the dfly-harness that is installed there, over ssh.

What a run needs of the store is brought there by rsync before, and its record comes back.  A host that is lost says
nothing about a kernel: its runs are made on another one.  Which host makes a run is drawn by the run's seed, not by who
is free: so it has nothing to do with the kernel, and kernels that are held against each other with one seed meet on one
host.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import harness
from harness.config import share
from harness.errors import DeadlineError, HarnessError, UsageError
from harness.guests.targets import ResolvedTarget
from harness.machine.description import Accelerator
from harness.machine.qemu import qemu_version
from harness.options import PYTEST_PREFIX
from harness.results.partial import partial_of
from harness.runs.carried import SHARE, SLOTS, TESTS, files_named, relocated
from harness.runs.digests import digest_of_harness, digest_of_tests
from harness.store import Store
from harness.toolchain import run_tool

#: The name of this host among others.
HERE = "local"
#: What reaches a host, such as `ssh -F FILE`; rsync takes the same way.
SSH_VARIABLE = "DFLY_HARNESS_SSH"
#: How the harness is called on other hosts, unless the user says otherwise.
COMMAND = "dfly-harness"
#: How often the asker of a run says that it is there, and how long it may be silent, in seconds.
HEARTBEAT, SILENCE = 5.0, 60.0
_ALIVE = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15")
_LOOK_DEADLINE = 180.0
_ANSWER_DEADLINE = 7 * 3600.0  # longer than a run may take
_STOP_DEADLINE = 60.0
_STALLED = 120  # s without a byte
_SSH_FAILED, _NOT_FOUND, _USAGE = 255, 127, 2
_TARGET = f"--{PYTEST_PREFIX}target="
_ROOT = "--rootdir="
_TEST_FILES = ("*.py", "*.toml", "*.ini", "*.cfg")

Progress = Callable[[str], None]


class HostLostError(HarnessError):
    """A host does not answer, or cannot do what it could before."""


@dataclass(frozen=True)
class Slots:
    """So many machines side by side on a host, which ssh knows by that name; HERE is this one."""

    name: str
    count: int

    @staticmethod
    def parse(text: str) -> tuple[Slots, ...]:
        """Read `a:4,b:8`; raises ValueError for what is none."""
        found = []
        for part in text.split(","):
            name, colon, count = part.rpartition(":")
            if not (colon and name and count.isascii() and count.isdigit() and int(count)) or name.startswith("-"):
                raise ValueError(f"{part!r} is no host with its slots: a:4,b:8 are four on a and eight on b")
            found.append(Slots(name, int(count)))
        names = [each.name for each in found]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"host {twice[0]} is named twice")
        return tuple(found)


@dataclass(frozen=True)
class About:
    """What must be known of a host before anything is sent; `trouble` is why no machines run there."""

    version: str = ""
    code: str = ""
    suites: str = ""
    home: str = ""
    rsync: bool = False
    qemu: str = ""
    trouble: str = ""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Rebuild it from what another version may have said."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


class Host:
    """One host, with COUNT slots; COMMAND is how the harness is called there.  STORE is ours."""

    def __init__(self, slots: Slots, store: Store, command: str) -> None:
        self.name, self.count = slots.name, slots.count
        self.is_here = slots.name == HERE
        self._store = store
        self._command = command
        self._ssh = [*shlex.split(os.environ.get(SSH_VARIABLE, "ssh")), *_ALIVE]
        self._home = ""
        self._there: set[str] = set()
        self._bringing = threading.Lock()
        self._lock = threading.Lock()
        self._runs: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def check(self, accelerator: Accelerator | None) -> None:
        """Look whether the host can make the same runs as this one, with machines on ACCELERATOR if there is one.

        Raises HarnessError, which says in one line why not.
        """
        if self.is_here:
            return
        about = self._look(accelerator)
        if about.version != harness.__version__:
            self._refuse(f"dfly-harness is version {about.version or 'unknown'} there and {harness.__version__} here")
        if about.code != digest_of_harness() or about.suites != digest_of_tests([share() / "suites"]):
            self._refuse("dfly-harness is the same version there but other code: install the same on both")
        if not about.rsync:
            self._refuse("rsync is not installed there (package rsync)")
        if about.trouble:
            self._refuse(about.trouble)
        if accelerator is not None and about.qemu != qemu_version():
            self._refuse(f"QEMU is {about.qemu} there and {qemu_version()} here: runs would not be alike")
        self._home = about.home

    def _refuse(self, why: str) -> None:
        raise HarnessError(f"host {self.name}: {why}")

    def _look(self, accelerator: Accelerator | None) -> About:
        words = f"{self._command} slot --about" + (f" --accelerator={accelerator}" if accelerator else "")
        try:
            done = run_tool([*self._ssh, self.name, words], deadline=_LOOK_DEADLINE, text=True)
        except DeadlineError:
            raise HarnessError(f"host {self.name}: it did not answer within {_LOOK_DEADLINE:g} s") from None
        said = _last_line(done.stderr) or "it said nothing"
        if done.returncode == _SSH_FAILED:
            self._refuse(f"it cannot be reached: {said}")
        if done.returncode == _NOT_FOUND:
            self._refuse(f"{self._command} is not there ({said}): install it, or say where it is (--hosts-command)")
        if done.returncode == _USAGE:
            self._refuse(f"dfly-harness is another version there: {said}")
        try:
            return About.from_json(json.loads(done.stdout))
        except (ValueError, TypeError, AttributeError):
            self._refuse(f"`{self._command}` is no dfly-harness that can be asked: {said}")
            raise

    def make(self, arguments: Sequence[str], seed: int, own: Path, log: Path) -> int | None:
        """Make the run there that SuiteRunner.make() makes here; raises HostLostError when the host is lost."""
        words, tests = self._bring(arguments)
        request = {"arguments": words, "tests": tests, "seed": seed}
        with tempfile.TemporaryFile() as errors:
            with self._lock:
                if self._stopped:
                    return None
                child = subprocess.Popen(
                    [*self._ssh, self.name, f"{self._command} slot"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,  # Ctrl-C is for us to hand on, in order
                )
                self._runs.add(child)
            try:
                said = self._talk(child, json.dumps(request).encode() + b"\n")
            finally:
                with self._lock:
                    self._runs.discard(child)
            errors.seek(0)
            complaint = _last_line(errors.read().decode(errors="replace"))
        if self._stopped:
            return None
        try:
            answer = json.loads(said)
        except ValueError:
            raise HostLostError(complaint or f"ssh ended with status {child.returncode}") from None
        log.write_text(f"on host {self.name}\n{answer['log']}")
        for suffix, text in answer["files"].items():
            (own if not suffix else partial_of(own)).write_text(text)
        return None if answer["status"] is None else int(answer["status"])

    def _talk(self, child: subprocess.Popen[bytes], request: bytes) -> bytes:
        """Ask for a run, go on asking, and return the answer."""
        said: list[bytes] = []
        output, asking = child.stdout, child.stdin
        assert output is not None
        assert asking is not None
        reader = threading.Thread(target=lambda: said.append(output.read()), daemon=True)
        reader.start()
        end, word = time.monotonic() + _ANSWER_DEADLINE, request
        try:
            while reader.is_alive() and time.monotonic() < end and not self._stopped:
                with contextlib.suppress(OSError, ValueError):  # the reader sees that nobody is there any more
                    asking.write(word)
                    asking.flush()
                word = b"\n"
                reader.join(HEARTBEAT)
        finally:
            with contextlib.suppress(OSError, ValueError):
                asking.close()
            reader.join(_STOP_DEADLINE)
            child.kill()
            child.wait()
            reader.join()
            output.close()
        return b"".join(said)

    def stop(self) -> None:
        """Ask for nothing any more: the host ends its runs in order."""
        with self._lock:
            self._stopped = True
            runs = list(self._runs)
        for run in runs:
            if run.stdin is not None:
                with contextlib.suppress(OSError, ValueError):
                    run.stdin.close()

    # What runs need there

    def _bring(self, arguments: Sequence[str]) -> tuple[list[str], str]:
        """Bring what ARGUMENTS name there; return them as they are there, and the name of the user's own tests."""
        root = next((Path(word.removeprefix(_ROOT)) for word in arguments if word.startswith(_ROOT)), share())
        files = dict.fromkeys(file for word in arguments for file in files_named(word))
        if root == share() and (inside := [file for file in files if file.is_relative_to(root)]):
            raise UsageError(f"what other hosts are to have lies outside the harness's own folder, unlike {inside[0]}")
        own = [] if root == share() else [file for file in files if file.is_relative_to(root)]
        tests = self._bring_tests(root, own) if root != share() else ""
        brought = self._bring_files([file for file in files if file not in own])
        for word in arguments:
            if word.startswith(_TARGET):
                self._bring_target(ResolvedTarget.from_text(word.removeprefix(_TARGET)))
        moved = {root: TESTS, share(): SHARE, **brought}
        return [relocated(word, moved) for word in arguments], tests

    def _bring_target(self, target: ResolvedTarget) -> None:
        digests: list[str] = []
        if target.image is not None:
            digests += target.image.blobs().values()
        if target.kernel is not None:
            digests += [target.kernel.elf, *([target.kernel.debug] if target.kernel.debug else [])]
        with self._bringing:
            if missing := [digest for digest in dict.fromkeys(digests) if digest not in self._there]:
                files = [str(self._store.blob(digest)) for digest in missing]
                # Their names are what they hold: one that is there is the same.
                self._rsync("-pt", "--ignore-existing", *files, f"{self.name}:{self._home}/blobs/")
                self._there.update(missing)

    def _bring_tests(self, root: Path, files: Sequence[Path]) -> str:
        if root in {Path.home(), Path(root.root)}:
            raise UsageError(f"tests for other hosts lie in a folder of their own, not in {root}")
        with self._bringing:
            key = hashlib.sha256(f"{root} {digest_of_tests([root], files)}".encode()).hexdigest()[:16]
            if key not in self._there:
                wanted = [f"--include={pattern}" for pattern in ("*/", *_TEST_FILES)]
                there = f"{self.name}:{self._home}/slots/tests-{key}/"
                self._rsync("-rtm", *wanted, "--exclude=*", f"{root}/", there)
                if files:
                    self._rsync("-rptR", *(f"{root}/./{file.relative_to(root)}" for file in files), there)
                self._there.add(key)
        return key

    def _bring_files(self, files: Sequence[Path]) -> dict[Path, str]:
        """Bring FILES, folders among them; return what stands for each there."""
        if not files:
            return {}
        with self._bringing:
            key = hashlib.sha256(f"{files} {digest_of_tests([], files)}".encode()).hexdigest()[:16]
            if key not in self._there:
                self._rsync("-rptR", *map(str, files), f"{self.name}:{self._home}/slots/files-{key}/")
                self._there.add(key)
        return {file: f"{SLOTS}/files-{key}{file}" for file in files}

    def _rsync(self, *words: str) -> None:
        argv = ["rsync", "-s", f"--timeout={_STALLED}", "-e", shlex.join(self._ssh), *words]
        done = run_tool(argv, deadline=_ANSWER_DEADLINE, text=True)
        if done.returncode != 0:
            said = next((line for line in done.stderr.splitlines() if line.strip()), "it said nothing")
            raise HostLostError(f"rsync ended with status {done.returncode}: {said}")


class HostPool:
    """The hosts of one campaign.  PROGRESS is told when one is lost."""

    def __init__(
        self, slots: Sequence[Slots], store: Store, *, command: str = COMMAND, progress: Progress = lambda _: None
    ) -> None:
        self._hosts = [Host(each, store, command) for each in slots]
        self._progress = progress
        self._lost: dict[Host, HostLostError] = {}
        self._busy = dict.fromkeys(self._hosts, 0)
        self._free = threading.Condition()
        self._stopped = False

    @property
    def count(self) -> int:
        """How many runs can be under way at once."""
        return sum(host.count for host in self._hosts)

    def check(self, accelerator: Accelerator | None) -> None:
        """Look whether all hosts can do what is to come, with machines on ACCELERATOR if there are any.

        Raises HarnessError, in one line, for the first that cannot.
        """
        far = [host for host in self._hosts if not host.is_here]
        program = shlex.split(os.environ.get(SSH_VARIABLE, "ssh"))[0]
        for name, package in ((program, "openssh-client"), ("rsync", "rsync")):
            if far and shutil.which(name) is None:
                raise HarnessError(f"{name} is not installed: other hosts are reached by it (package {package})")
        for host in far:
            self._progress(f"looking at host {host.name}")
            host.check(accelerator)

    @contextlib.contextmanager
    def place(self, seed: int) -> Iterator[Host | None]:
        """Give a slot on the host that SEED draws, as soon as one is free there; None when runs are to end.

        Raises HarnessError when no host is left.
        """
        with self._free:
            while not self._stopped and self._busy[host := self._draw(seed)] >= host.count:
                self._free.wait()
            taken = None if self._stopped else self._draw(seed)
            if taken is not None:
                self._busy[taken] += 1
        try:
            yield taken
        finally:
            with self._free:
                if taken is not None:
                    self._busy[taken] -= 1
                self._free.notify_all()

    def _draw(self, seed: int) -> Host:
        """Return the host for SEED: in each row of seeds every slot comes once, in an order of its own."""
        slots = [host for host in self._hosts if host not in self._lost for _ in range(host.count)]
        if not slots:
            reasons = "; ".join(f"{host.name}: {why}" for host, why in self._lost.items())
            raise HarnessError(f"no host is left to make runs on: {reasons}")
        row, index = divmod(seed, len(slots))
        random.Random(row).shuffle(slots)  # noqa: S311
        return slots[index]

    def lose(self, host: Host, why: HostLostError) -> None:
        """Give HOST no more runs."""
        with self._free:
            known = host in self._lost
            self._lost.setdefault(host, why)
            self._free.notify_all()
        if not known:
            self._progress(f"host {host.name} is lost, its runs are made elsewhere: {why}")

    def stop(self) -> None:
        """End all runs on other hosts, and begin none."""
        with self._free:
            self._stopped = True
            self._free.notify_all()
        for host in self._hosts:
            host.stop()
