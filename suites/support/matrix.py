# SPDX-License-Identifier: BSD-2-Clause
"""The hosts the harness is tried on: other releases of Debian, each in a folder of its own, and the one this runs on.

`python suites/support/matrix.py here trixie sid` installs each release with mmdebstrap (as root), the harness from a
wheel, what it needs by `doctor --fix`, runs the conformance suite on the control guest and the selftests that start
machines, and prints a row of docs/hosts.md, which --note puts there, and in short into README.md.  Exit status 1:
something failed, or the hosts' verdicts differ.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "python suites/support/matrix.py"
PAGE = ROOT / "docs" / "hosts.md"
README = ROOT / "README.md"
#: The head of README's table: which cells of the page's rows it has.
BRIEF = "| host | QEMU | Python | tried |\n|---|---|---|---|\n"
HERE = "here"
#: Selftests about machines, their states, lanes, recordings and the control guest: what depends on QEMU's version.
SELFTESTS = (
    "machine", "accel", "directboot", "lanes", "replay", "warm_states", "resume", "guests", "control_image", "whitebox",
    "coverage",
)  # fmt: skip
_MIRROR = "http://deb.debian.org/debian"
_ALMOST_NOTHING = "ca-certificates,python3-venv"
_VALID = "Acquire::Check-Valid-Until"
_HOME = "root"  # in a release's folder
_STEP = 3600.0  # s that a step may take
_ENTER = """
mount -t proc proc "$0/proc"; mount --rbind /dev "$0/dev"; mount --rbind /sys "$0/sys"; mount -t tmpfs tmp "$0/tmp"
exec chroot "$0" /usr/bin/env -i HOME=/root PATH=/root/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
    sh -ec "cd /root; $1"
"""
_CODE = "import sys; from harness.cli import main; sys.exit(main())"


class FailedError(Exception):
    """A step that nothing can be said without."""


@dataclass(frozen=True)
class Host:
    """A release in a folder, or, where that is None, the one this runs on."""

    name: str
    root: Path | None
    work: Path

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run SCRIPT there, by sh; raises FailedError when it does not end."""
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", _ENTER, str(self.root), script]
        try:
            return subprocess.run(
                inside if self.root is not None else ["sh", "-ec", script],
                cwd=self.work, capture_output=True, text=True, check=False, timeout=_STEP,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise FailedError(f"{self.name}: waited {_STEP:.0f} s for `{script[:80]}` to end") from None

    def must(self, script: str) -> str:
        """Run SCRIPT there and return what it says; raises FailedError when it fails."""
        done = self.run(script)
        if done.returncode:
            raise FailedError(f"{self.name}: `{script}` failed:\n{(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    @property
    def command(self) -> str:
        """How dfly-harness is called there."""
        return "dfly-harness" if self.root is not None else f"{shlex.quote(sys.executable)} -c {shlex.quote(_CODE)}"


def call(*argv: str | Path) -> str:
    """Run ARGV here and return what it says; raises FailedError when it fails."""
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(f"`{' '.join(map(str, argv))}` failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def prepare(name: str, folder: Path, mirror: str) -> Host:
    """Return the host NAME, below FOLDER, with the harness and what it needs; raises FailedError."""
    if name == HERE:
        work = folder / HERE
        work.mkdir(parents=True, exist_ok=True)
        return Host(name, None, work)
    root = folder / name
    if not (root / "usr" / "bin" / "python3").exists():
        say(f"{name}: installing it in {root}")
        shutil.rmtree(root, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)  # mmdebstrap makes the last folder of a path only
        call("mmdebstrap", "--variant=apt", f"--include={_ALMOST_NOTHING}", *_apt_options(), name, root, mirror)
    host = Host(name, root, root / _HOME)
    version = host.must("python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'").strip()
    say(f"{name}: Python {version}, installing the harness")
    wheels = host.work / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT)
    (wheel,) = wheels.glob("dfly_harness-*.whl")
    # Fetched here, where pip is set up for the network at hand.
    call(
        sys.executable, "-m", "pip", "download", "-q", "-d", wheels,
        "--only-binary=:all:", f"--python-version={version}", wheel,
    )  # fmt: skip
    install = "venv/bin/pip install -q --no-index --find-links wheels --force-reinstall dfly-harness"
    host.must(f"python3 -m venv venv; {install}; apt-get update -qq; dfly-harness doctor --fix")
    return host


def _apt_options() -> list[str]:
    """Return what this host's apt is told of archives that are out of date, such as a mirror that stands still."""
    with contextlib.suppress(OSError, FailedError):
        return [f"--aptopt={line.rstrip(';')}" for line in call("apt-config", "dump", _VALID).splitlines() if line]
    return []


def lend(store: Path, host: Host) -> None:
    """Let HOST have the DragonFly images and kernels of STORE; what is large is linked, as it is never written."""
    if host.root is None:
        return
    theirs = host.work / ".local" / "share" / "dfly-harness"
    for name in ("blobs", "images", "kernels", "keys"):
        if (store / name).is_dir():
            shutil.copytree(store / name, theirs / name, dirs_exist_ok=True, copy_function=_link)


def _link(source: str, target: str) -> None:
    with contextlib.suppress(FileExistsError):
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copy2(source, target)


def say(text: str) -> None:
    """Tell on standard error what is going on."""
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")


def verdicts_on(host: Host, what: str, words: str, *, go_on: bool = False) -> dict[str, str]:
    """Return the verdicts of a run with WORDS there, by test; raises FailedError where it leaves no record.

    With GO_ON what has a record is not run again.
    """
    file = host.work / f"{what}.json"
    if not (go_on and file.exists()):
        say(f"{host.name}: {what}")
        file.unlink(missing_ok=True)
        done = host.run(f"{host.command} run {words} --json {what}.json")
        if not file.exists():
            raise FailedError(f"{host.name}: {what} left no record:\n{(done.stdout + done.stderr)[-3000:]}")
    record: dict[str, Any] = json.loads(file.read_text())
    if record["trouble"]:
        raise FailedError(f"{host.name}: {what}: {record['trouble']['text']}")
    return {each["test"]: each["verdict"] for each in record["results"]}


@dataclass(frozen=True)
class Findings:
    """What was found on one host: verdicts by test, and what the row of the page says of it."""

    name: str
    row: str
    conformance: dict[str, str]
    selftests: dict[str, str]

    @property
    def failures(self) -> list[str]:
        """What speaks against the host, or the harness on it."""
        everything = {**self.conformance, **self.selftests}
        fine = {"passed", "not applicable", "known defect"}
        return [f"{test}: {verdict}" for test, verdict in everything.items() if verdict not in fine]


def examine(host: Host, conformance: str, selftests: str, *, go_on: bool = False) -> Findings:
    """Run all of it on HOST; with GO_ON what was not run yet."""
    suite = verdicts_on(host, "conformance", f"--control {conformance}", go_on=go_on)
    own = verdicts_on(host, "selftests", selftests, go_on=go_on)
    facts = host.must("grep ^PRETTY_NAME= /etc/os-release; qemu-system-x86_64 --version; gcc --version")
    lines = [line for line in facts.splitlines() if line.strip()]
    system = lines[0].partition("=")[2].strip('"')
    qemu = next(line.split()[3] for line in lines if line.startswith("QEMU emulator"))
    gcc = next(line.split()[-1] for line in lines if line.startswith("gcc"))
    python = host.must("python3 -V").split()[1] if host.root is not None else sys.version.split()[0]
    told = json.loads((host.work / "conformance.json").read_text())
    guest = told["target"].rpartition(": ")[2]
    counts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(suite.values()).most_common())
    ran = Counter(own.values())
    rest = ", ".join(f"{count} {verdict}" for verdict, count in ran.most_common())
    cells = [system, qemu, python, gcc, guest, counts, rest, f"{datetime.now(UTC):%Y-%m-%d}"]
    return Findings(host.name, f"| {' | '.join(cells)} |", suite, own)


def differences(found: Sequence[Findings]) -> Iterator[str]:
    """Yield each test of the suite that came to something else than on the first host."""
    for other in found[1:]:
        first = found[0]
        for test in sorted(first.conformance.keys() | other.conformance.keys()):
            one, two = (each.conformance.get(test, "did not run") for each in (first, other))
            if one != two:
                yield f"{test}: {one} on {first.name}, {two} on {other.name}"


def note(page: str, row: str) -> str:
    """Return PAGE with ROW in its table of hosts, in place of the row of the same system if there is one."""
    begin = row[: row.index("|", 1) + 1]
    lines = [line for line in page.splitlines() if not line.startswith(begin)]
    table = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    end = next(number for number in range(table, len(lines)) if not lines[number].startswith("|"))
    return "\n".join([*lines[:end], row, *lines[end:], ""])


def brief(readme: str, page: str) -> str:
    """Return README with the hosts of PAGE in its table."""
    lines = page[page.index("\n|---") + 1 :].splitlines()[1:]
    rows = [line.strip("|").split("|") for line in takewhile(lambda line: line.startswith("|"), lines)]
    table = [f"|{'|'.join([*cells[:3], cells[-1]])}|" for cells in rows]
    before, head, after = readme.partition(BRIEF)
    return before + head + "\n".join([*table, ""]) + after[after.index("\n\n") + 1 :]


def put(row: str) -> None:
    """Put ROW into the page, and what the README has of it there."""
    page = note(PAGE.read_text(), row)
    PAGE.write_text(page)
    README.write_text(brief(README.read_text(), page))


def main(arguments: list[str] | None = None) -> int:
    """Try the hosts that are named; return the exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.partition("\n")[0])
    parser.add_argument("hosts", nargs="+", metavar="HOST", help=f"{HERE}, or a release of Debian such as trixie, sid")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/dfly-hosts"), help="where releases are installed")  # noqa: S108
    parser.add_argument("--mirror", default=_MIRROR, help="where they are fetched (default: %(default)s)")
    parser.add_argument("--conformance", default="-n 2", metavar="WORDS", help="for the suite (default: %(default)s)")
    own = " ".join(f"selftest/test_{name}.py" for name in SELFTESTS)
    parser.add_argument("--selftests", default=own, metavar="WORDS", help="the selftests (default: %(default)s)")
    parser.add_argument("--store", type=Path, help="a store whose DragonFly images and kernels the releases may use")
    parser.add_argument("--go-on", action="store_true", help="do not run again what an earlier call has run")
    parser.add_argument("--note", action="store_true", help=f"put the rows into {PAGE.relative_to(ROOT)} and README.md")
    options = parser.parse_args(arguments)
    found: list[Findings] = []
    try:
        for name in options.hosts:
            host = prepare(name, options.folder.resolve(), options.mirror)
            if options.store is not None:
                lend(options.store, host)
            found.append(examine(host, options.conformance, options.selftests, go_on=options.go_on))
            sys.stdout.write(f"{found[-1].row}\n")
            if options.note:
                put(found[-1].row)
    except (FailedError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 3
    wrong = [f"{each.name}: {failure}" for each in found for failure in each.failures] + [*differences(found)]
    sys.stdout.writelines(f"{line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
