# SPDX-License-Identifier: BSD-2-Clause
"""From sources to a kernel: builders behind one interface, each input built once, failures remembered as well."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from harness.errors import DeadlineError, ExitCode, HarnessError, UsageError
from harness.kernels.artefact import Kernel, require_free_name
from harness.kernels.source import SourceTree
from harness.machine.elf import identify_kernel
from harness.store import Entry, Store
from harness.tether import Tether

DEFAULT_CONFIG = "X86_64_GENERIC"
BUILD_DEADLINE = 4 * 3600.0
_KILL_DEADLINE = 10.0
# What no shell evaluates, inside quotes or outside.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+,:@%-]+")
_CONFIG_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_FORMAT = 1

Progress = Callable[[str], None]

# What compilers, linkers and config(8) say of sources that are wrong.
_SOURCE_ERRORS = tuple(
    re.compile(pattern)
    for pattern in (
        r"^\S+?:\d+(?::\d+)?: (?:fatal )?error: .+",
        r"^\S+?:\d+(?::\d+)?: .*(?:undeclared|undefined|No such file).*",
        r"^.*: undefined reference to .+",
        r"^(?:\S*/)?(?:ld|collect2|cc1|as)\b\S*: .+",
        r"^config(?:\[\d+\])?: .+",
    )
)
# What make(1) and shells say when they give up, which may be the fault of objects that are out of date.
_OTHER_ERRORS = tuple(
    re.compile(pattern)
    for pattern in (
        r"^(?:make|bmake|gmake)(?:\[\d+\])?: (?!\"|Entering|Leaving|stopped).+",
        r"^\S.*: (?:not found|No such file or directory)$",
    )
)
# make(1) about a command that failed: what that said itself is the line before.
_GAVE_UP = re.compile(r"^\*\*\* (?:\[[^]]+\] )?(?:Error code|Signal) \d+.*")
# That a disk is full, memory is short, or a tool is killed or missing says nothing about the sources.
_NOT_THE_SOURCES = re.compile(
    r"^.*(?:No space left on device|[Ff]ile ?system (?:is )?full|Input/output error|Cannot allocate memory"
    r"|virtual memory exhausted|out of memory|[Ff]ork: Resource temporarily unavailable"
    r"|[Kk]illed signal terminated program|internal compiler error: Killed|^Killed$|\] Killed$"
    r"|^\S*(?:sh|make)(?:\[\d+\])?: (?:line |\d+: |\S+: )*\S+: (?:command )?not found).*$",
    re.MULTILINE,
)
_NOT_RUN = {126: "cannot be executed", 127: "is not there"}  # a shell's status for a command


class BuildFailedError(HarnessError):
    """The sources do not become a kernel: the first compiler error, and where the whole log is.

    That speaks against the sources, not against the harness: exit status 1.
    """

    exit_code = ExitCode.TEST_FAILED

    def __init__(self, error: str, log: Path, *, cached: bool = False) -> None:
        self.error = error
        self.log = log
        again = " (known from an earlier build of the same input; --retry builds again)" if cached else ""
        super().__init__(f"the kernel does not build: {error}{again}; log: {log}")


@dataclass(frozen=True)
class Build(Entry):
    """One build, good or bad: its input, which names it, and what came of it.  Times are in seconds."""

    KIND: ClassVar[str] = "build"
    PLURAL: ClassVar[str] = "builds"

    base_tree: str
    tree: str
    config: str
    builder: str
    origin: str = ""
    patches: tuple[str, ...] = ()
    elf: str | None = None
    debug: str | None = None
    modules: str | None = None
    log: str = ""
    error: str = ""
    exit_status: int = 0
    compiler: str = ""
    seconds: float = 0.0
    built: str = ""

    def blobs(self) -> dict[str, str]:
        """Return the blobs of the kernel, its debug file, its modules and the log."""
        given = {"elf": self.elf, "debug": self.debug, "modules": self.modules, "log": self.log}
        return {role: digest for role, digest in given.items() if digest}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Rebuild the record."""
        return super().from_json({**data, "patches": tuple(data.get("patches", ()))})


@dataclass(frozen=True)
class Job:
    """What a builder is given: sources, kernel configuration, and a folder of its own with the log to write."""

    source: SourceTree
    config: str
    folder: Path
    log: Path
    progress: Progress = field(repr=False, default=lambda _: None)


@dataclass(frozen=True)
class Built:
    """What a builder returns: files in the job's folder.  `modules` is a tar archive of the *.ko files."""

    kernel: Path
    debug: Path | None = None
    modules: Path | None = None


class FailedBuild(Exception):  # noqa: N818  (not an error of ours: a result)
    """Raised by builders when the sources do not build; `said` is said when the log gives no reason."""

    def __init__(self, status: int, said: str) -> None:
        self.status = status
        self.said = said
        super().__init__(said)


class Builder(Protocol):
    """Makes a kernel out of sources."""

    @property
    def identity(self) -> str:
        """Names the builder and its compiler: a build by another identity is another build."""

    def build(self, job: Job) -> Built:
        """Build; raises FailedBuild when the sources are at fault, HarnessError when anything else is."""


def _first_match(log: str, patterns: tuple[re.Pattern[str], ...]) -> str | None:
    for line in log.splitlines():
        # A test for a compiler's feature may fail on purpose; an error that make(1) ignored is none.
        if any(pattern.match(line) for pattern in patterns) and "(ignored)" not in line:
            # Where the scratch copy was does not matter; the path below the top of the sources does.
            return re.sub(r"^\S*?/(?=sys/)", "", line.strip())
    return None


def source_error(log: str) -> str | None:
    """Return the first line of a build log in which a compiler, linker or config(8) blames the sources, or None."""
    return _first_match(log, _SOURCE_ERRORS)


def first_error(log: str) -> str | None:
    """Return the line of a build log that says what went wrong first, or None."""
    if (found := _first_match(log, (*_SOURCE_ERRORS, *_OTHER_ERRORS))) is not None:
        return found
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for said, line in pairwise(lines):
        if _GAVE_UP.match(line) and "(ignored)" not in line:
            return f"{said} ({line})"
    return None


def require_means(log: Path, status: int) -> None:
    """Raise HarnessError when a build that failed with STATUS, as a shell gives it, lacked room, memory or a tool.

    LOG is what it said.  That is no fault of the sources, and not kept as one.
    """
    if (killer := _killed_by(status)) is not None:
        raise HarnessError(f"{killer} ended the build command before it was done; start it again")
    text = log.read_text(errors="replace")
    if (found := _NOT_THE_SOURCES.search(text)) is not None:
        raise HarnessError(f"the build lacked what it needs: {found[0].strip()}")
    if status in _NOT_RUN:
        raise HarnessError(f"a command of the build {_NOT_RUN[status]}: {_last_line(text)} (status {status})")


def _last_line(log: str) -> str:
    return log.strip().rpartition("\n")[2].strip()


def _killed_by(status: int) -> str | None:
    """Return the signal that ended a command from outside, by its STATUS or what a shell made of it; None otherwise."""
    number = -status if status < 0 else status - 128
    from_outside = {signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM}
    return signal.Signals(number).name if number in from_outside else None


@contextlib.contextmanager
def _plain_path(folder: Path) -> Iterator[Path]:
    """Give a path of FOLDER that means itself in any shell, however it is quoted there.

    Where a placeholder is in the user's command only the user's shell knows, and the shells that one starts.
    """
    if _PLAIN_PATH.fullmatch(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="dfly-build-") as other:
        link = Path(other) / "build"
        if not _PLAIN_PATH.fullmatch(str(link)):
            raise UsageError(
                f"a build command needs a path that no shell evaluates, and neither {folder} nor {other} is one:"
                " set TMPDIR or DFLY_HARNESS_HOME to a folder named with letters, digits and -_.+ only"
            )
        link.symlink_to(folder)
        yield link


class CommandBuilder:
    """Any build a user has: a shell command in which {source}, {output} and {config} stand for paths and a name.

    It succeeds when it ends with status 0 and {output} is a kernel; {output}.debug, if it is there, is taken along.
    """

    def __init__(self, command: str, *, deadline: float = BUILD_DEADLINE) -> None:
        if "{output}" not in command or "{source}" not in command:
            raise UsageError("--command needs {source} and {output}: 'mybuild {source} {output}'")
        self._command = command
        self._deadline = deadline

    @property
    def identity(self) -> str:
        """The command's text and the content of the files it names: an edited build script is another builder."""
        parts = [f"command {self._command}"]
        with contextlib.suppress(ValueError):
            for word in shlex.split(self._command):
                file = Path(word).expanduser()
                if "{" not in word and "/" in word and file.is_file():
                    parts.append(hashlib.sha256(file.read_bytes()).hexdigest()[:16])
        return " ".join(parts)

    def build(self, job: Job) -> Built:
        """Write the sources out and run the command on them."""
        job.progress("writing the sources")
        with _plain_path(job.folder) as folder:
            return self._build(job, folder)

    def _build(self, job: Job, folder: Path) -> Built:
        source, output = folder / "src", folder / "out" / "kernel"
        job.source.write_to(source)
        output.parent.mkdir()
        command = self._command
        for name, value in (("{source}", str(source)), ("{output}", str(output)), ("{config}", job.config)):
            command = command.replace(name, value)
        job.progress("building")
        status = self._run(command, job)
        if status != 0:
            require_means(job.log, status)
            raise FailedBuild(status, f"the build command ended with status {status}")
        if not output.is_file():
            raise FailedBuild(0, "the build command ended with status 0 and made no {output}")
        made = job.folder / "out" / "kernel"
        debug = made.with_name("kernel.debug")
        return Built(made, debug if debug.is_file() else None)

    def _run(self, command: str, job: Job) -> int:
        with job.log.open("wb") as log, Tether() as tether:
            process = subprocess.Popen(
                tether.wrapped("/bin/sh", "-c", command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=job.folder, start_new_session=True, pass_fds=(tether.fd,),
            )  # fmt: skip
            tether.started()
            try:
                return process.wait(self._deadline)
            except subprocess.TimeoutExpired:
                raise DeadlineError("the build command to end", self._deadline) from None
            finally:
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGTERM)
                    try:
                        process.wait(_KILL_DEADLINE)
                    except subprocess.TimeoutExpired:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.wait()


class IncrementalBuilder(CommandBuilder):
    """Builds one tree again and again with another version of one file, in the same place: make(1) does the rest.

    In the command {file} stands for the path of that file, for those who need no more of the sources than that.
    """

    def __init__(self, command: str, source: SourceTree, folder: Path, *, deadline: float = BUILD_DEADLINE) -> None:
        """Prepare to run COMMAND on SOURCE, which is written into FOLDER if the command needs it."""
        if "{output}" not in command or not ("{source}" in command or "{file}" in command):
            raise UsageError("--command needs {output}, and {source} or {file}: 'mybuild {file} {output}'")
        self._command = command
        self._deadline = deadline
        self._source = source
        self._folder = folder
        self._needs_all = "{source}" in command
        self._written = False

    def build_with(self, path: str, content: bytes, log: Path) -> Path:
        """Return the kernel of the tree with CONTENT as its file PATH.

        It is overwritten by the next call.  Raises FailedBuild when the sources are at fault, HarnessError when
        anything else is.
        """
        with _plain_path(self._folder) as folder:
            tree, output = folder / "src", folder / "out" / "kernel"
            if self._needs_all and not self._written:
                self._source.write_to(tree)
            self._written = True
            file = tree / path
            file.parent.mkdir(parents=True, exist_ok=True)
            output.parent.mkdir(exist_ok=True)
            output.unlink(missing_ok=True)
            file.write_bytes(content)
            command = self._command
            for name, value in (
                ("{source}", tree),
                ("{file}", file),
                ("{output}", output),
                ("{config}", DEFAULT_CONFIG),
            ):
                command = command.replace(name, str(value))
            status = self._run(command, Job(self._source, DEFAULT_CONFIG, self._folder, log))
            if status != 0:
                require_means(log, status)
                raise FailedBuild(status, f"the build command ended with status {status}")
            if not output.is_file():
                raise FailedBuild(0, "the build command ended with status 0 and made no {output}")
        return self._folder / "out" / "kernel"


def require_config_name(config: str) -> None:
    """Raise UsageError unless CONFIG can name a kernel configuration: it is put into shells, paths and make(1)."""
    if not _CONFIG_NAME.fullmatch(config):
        raise UsageError(f"--config {config!r} names no kernel configuration: letters, digits and _.+- only")


def build_key(source: SourceTree, config: str, builder: Builder) -> str:
    """Return the name of a build: a digest of all that it depends on."""
    parts = [_FORMAT, source.tree, config, builder.identity]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def _known(store: Store, key: str) -> Build | None:
    if not (store.folder(Build.PLURAL) / f"{key}.json").exists():
        return None
    found = store.get(Build, key)
    try:
        for digest in found.blobs().values():
            store.blob(digest)
    except HarnessError:
        return None  # what a record promises is gone: build again
    return found


def build_kernel(
    store: Store,
    source: SourceTree,
    builder: Builder,
    *,
    config: str = DEFAULT_CONFIG,
    retry: bool = False,
    progress: Progress = lambda _: None,
) -> Build:
    """Return the build of SOURCE by BUILDER, from the store if it was made before; another command's is waited for.

    Raises BuildFailedError when it does not build, or did not the last time and RETRY is not set.
    """
    require_config_name(config)
    key = build_key(source, config, builder)
    found = _known(store, key)
    if found is not None and (found.elf is not None or not retry):
        return _checked(store, found, cached=True)
    asked = datetime.now(UTC).isoformat()
    with _alone(store, key, progress):
        # Made while we waited; to retry, too.
        found = _known(store, key)
        if found is not None and (found.elf is not None or not retry or found.built >= asked):
            return _checked(store, found, cached=found.built < asked)
        return _checked(store, _build(store, key, source, builder, config, progress), cached=False)


@contextlib.contextmanager
def _alone(store: Store, key: str, progress: Progress) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(store.lock(f"build-{key}", deadline=0))
        except DeadlineError:
            progress("waiting for another command that builds the same")
            held.enter_context(store.lock(f"build-{key}", deadline=BUILD_DEADLINE))
        yield


def _checked(store: Store, build: Build, *, cached: bool) -> Build:
    if build.elf is None:
        raise BuildFailedError(build.error, store.blob(build.log), cached=cached)
    return build


def _build(store: Store, key: str, source: SourceTree, builder: Builder, config: str, progress: Progress) -> Build:
    started = time.monotonic()
    with store.scratch("build") as folder, store.adding():
        log = folder / "build.log"
        log.touch()
        job = Job(source, config, folder, log, progress)
        built: Built | None = None
        status, error = 0, ""
        try:
            built = builder.build(job)
            identify_kernel(built.kernel)
        except FailedBuild as failed:
            text = log.read_text(errors="replace").replace(f"{folder}/", "")
            status, error = failed.status, first_error(text) or _last_line(text) or failed.said
        except UsageError as refused:
            if built is None:
                raise
            built, error = None, f"what was built is no kernel: {str(refused).replace(f'{folder}/', '')}"

        def keep(file: Path | None) -> str | None:
            return store.add_blob(file, move=True) if file is not None else None

        record = Build(
            name=key,
            base_tree=source.base_tree,
            tree=source.tree,
            config=config,
            builder=builder.identity,
            origin=source.origin,
            patches=source.patches,
            compiler=compiler_of(built.kernel) if built is not None else "",
            log=store.add_blob(log),
            elf=keep(built.kernel) if built is not None else None,
            debug=keep(built.debug) if built is not None else None,
            modules=keep(built.modules) if built is not None else None,
            error=error,
            exit_status=status,
            seconds=round(time.monotonic() - started, 1),
            built=datetime.now(UTC).isoformat(),
        )
        store.put(record, replace=True)
    return record


def compiler_of(kernel: Path) -> str:
    """Return what the compiler wrote into KERNEL about itself (.comment), or an empty string."""
    from elftools.elf.elffile import ELFFile

    with kernel.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".comment")
        data = section.data() if section is not None else b""
    return "; ".join(sorted({part.decode(errors="replace") for part in data.split(b"\0") if part}))


def name_build(store: Store, build: Build, name: str | None = None, imported: str = "") -> Kernel:
    """Return the kernel record of BUILD, called NAME, or by default after the build's key.

    A kernel named by default is never the one meant where no kernel is named.
    """
    assert build.elf is not None
    if name is not None:
        require_free_name(store, name)
    identity = identify_kernel(store.blob(build.elf))
    patches = f" + {' + '.join(build.patches)}" if build.patches else ""
    record = Kernel(
        name=name or f"built-{build.name[:12]}",
        elf=build.elf,
        version=identity.version,
        osreldate=identity.osreldate,
        build_id=identity.build_id,
        debug=build.debug,
        modules=build.modules,
        source=f"{build.origin}{patches}",
        imported=imported,
    )
    store.put(record, replace=name is None)
    return record
