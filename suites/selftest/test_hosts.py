# SPDX-License-Identifier: BSD-2-Clause
"""Several hosts: pytest-xdist over SSH, shown with a second host in a network namespace of this one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import ExitCode
from harness.processes.connection import await_true

ROOT = Path(__file__).parents[2]
PROGRAMS = ("ip", "ssh", "ssh-keygen", "sshd", "rsync")
DEADLINE = 20.0
NAMESPACE, NEAR, FAR = "dfly-test", "198.51.100.1", "198.51.100.2"  # addresses for documentation, RFC 5737
PORT = 2222

pytestmark = pytest.mark.exclusive  # there is one such namespace


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Host:
    """A host that SSH reaches by the name `second`, with a folder of its own."""

    folder: Path

    @property
    def config(self) -> Path:
        """What ssh must be told."""
        return self.folder / "ssh_config"

    def receive(self, source: Path, name: str) -> Path:
        """Copy SOURCE there by rsync, under NAME; return where it is."""
        target = self.folder / name
        shell = f"ssh -F {self.config}"
        done = _run(
            "rsync", "-a", "-e", shell, "--exclude=.*", "--exclude=__pycache__", f"{source}/", f"second:{target}/"
        )
        assert done.returncode == 0, done.stderr
        return target


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [program for program in PROGRAMS if shutil.which(program, path=path) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    with ExitStack() as undone_later:
        if (refused := _run("ip", "netns", "add", NAMESPACE)).returncode != 0:
            pytest.skip(f"no network namespaces here: {refused.stderr.strip()}")
        undone_later.callback(_run, "ip", "netns", "delete", NAMESPACE)
        inside = ("ip", "-n", NAMESPACE)
        for command in (
            ("ip", "link", "add", "dfly-near", "type", "veth", "peer", "name", "dfly-far", "netns", NAMESPACE),
            ("ip", "address", "add", f"{NEAR}/30", "dev", "dfly-near"),
            ("ip", "link", "set", "dfly-near", "up"),
            (*inside, "address", "add", f"{FAR}/30", "dev", "dfly-far"),
            (*inside, "link", "set", "dfly-far", "up"),
            (*inside, "link", "set", "lo", "up"),
        ):
            if (refused := _run(*command)).returncode != 0:
                pytest.skip(f"no virtual network here: {refused.stderr.strip()}")
        host = Host(tmp_path / "second")
        host.folder.mkdir()
        server = _start_sshd(host, shutil.which("sshd", path=path) or "")
        undone_later.callback(server.wait)
        undone_later.callback(server.kill)
        hello = ("ssh", "-F", str(host.config), "-o", "ConnectTimeout=2", "second", "true")
        await_true(lambda: _run(*hello).returncode == 0 or server.poll() is not None, "the second host", DEADLINE)
        if server.poll() is not None:
            pytest.skip(f"sshd does not run here: {(host.folder / 'log').read_text().strip()}")
        yield host


def _start_sshd(host: Host, sshd: str) -> subprocess.Popen[bytes]:
    Path("/run/sshd").mkdir(exist_ok=True)  # compiled in
    for key in ("host", "user"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host.folder / key))
    server = host.folder / "sshd_config"
    server.write_text(
        f"Port {PORT}\nListenAddress {FAR}\nHostKey {host.folder}/host\nAuthorizedKeysFile {host.folder}/user.pub\n"
        "StrictModes no\nPermitRootLogin yes\nPidFile none\nUsePAM no\n"
    )
    host.config.write_text(
        f"Host second\n HostName {FAR}\n Port {PORT}\n User root\n IdentityFile {host.folder}/user\n"
        " StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n"
    )
    argv = ["ip", "netns", "exec", NAMESPACE, sshd, "-D", "-e", "-f", str(server)]
    with (host.folder / "log").open("wb") as log:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def test_a_run_spreads_over_two_hosts(second: Host, tmp_path: Path) -> None:
    checkout = second.receive(ROOT, "checkout")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "sample").write_text("travels")
    store = second.receive(tmp_path / "store", "store")
    assert (store / "sample").read_text() == "travels"
    record = tmp_path / "run.json"
    gateway = (
        f"ssh=second//ssh_config={second.config}//python={sys.executable}//chdir={checkout}"
        f"//env:DFLY_HARNESS_HOME={store}//id=second"
    )
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--dfly-oracle", f"--dfly-json={record}"]
    argv += ["-o", "testpaths=suites/conformance/test_wait.py"]
    argv += ["--dist", "load", "--tx", "popen//id=first", "--tx", gateway]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.PASSED, done.stdout[-3000:] + done.stderr[-1000:]
    results = json.loads(record.read_text())["results"]
    assert {result["worker"] for result in results} == {"first", "second"}
    assert len({result["test"] for result in results}) == len(results) > 50
