# SPDX-License-Identifier: BSD-2-Clause
"""Bad input gets one line that says what to do, the right exit status, no traceback, and nothing is left behind."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.cli import build_parser, main
from harness.cli.commands import SUMMARIES
from harness.cli.run import _default_workers
from harness.config import share
from harness.errors import UsageError
from harness.kernels.artefact import Kernel
from harness.plugin.parallel import available_cores
from harness.runs.options import RunOptions
from harness.runs.suite import PytestWords
from harness.store import Store

README = share() / "README.md"


class Cli:
    """Runs dfly-harness as a user would, with a store of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "DFLY_HARNESS_HOME": str(home), "COLUMNS": "200"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command."""
        argv = [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())", *arguments]
        return subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment, cwd=share()
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command and return its exit status, output and errors."""
        with self.start(*arguments) as process:
            output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "store")


@pytest.fixture
def ssh_key(tmp_path: Path) -> Path:
    import paramiko

    file = tmp_path / "key"
    paramiko.ECDSAKey.generate().write_private_key_file(str(file))
    return file


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Return a file whose first sectors look like a UFS1 file system."""
    file = tmp_path / "disk.img"
    content = bytearray(1 << 20)
    content[8192 + 1372 : 8192 + 1376] = (0x011954).to_bytes(4, "little")
    file.write_bytes(content)
    return file


def assert_one_line(result: tuple[int, str, str], status: int, *parts: str) -> None:
    """Check exit status, that the complaint is the last line on standard error, and what it says."""
    code, _, errors = result
    assert code == status, errors
    assert "Traceback" not in errors
    last = errors.strip().splitlines()[-1]
    for part in parts:
        assert part in last


COMMANDS = (
    (),
    ("run",),
    ("compare",),
    ("image",),
    ("image", "releases"),
    ("image", "fetch"),
    ("image", "build"),
    ("image", "import"),
    ("image", "warm"),
    ("image", "list"),
    ("image", "show"),
    ("image", "remove"),
    ("kernel",),
    ("kernel", "build"),
    ("kernel", "import"),
    ("kernel", "install"),
    ("kernel", "list"),
    ("kernel", "show"),
    ("kernel", "remove"),
    ("store",),
    ("store", "prune"),
    ("store", "verify"),
    ("bench",),
    ("calibrate",),
    ("doctor",),
    ("shell",),
    ("hold",),
    ("copy",),
    ("console",),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(cli: Cli, command: Sequence[str]) -> None:
    status, output, _ = cli.run(*command, "--help")
    assert status == 0
    assert "usage: dfly-harness" in output
    if command:
        assert "example:\n  dfly-harness" in output


def test_each_command_is_brought_by_the_module_that_has_it() -> None:
    def known(parser: argparse.ArgumentParser) -> set[str]:
        return {name for action in parser._actions if isinstance(action.choices, dict) for name in action.choices}

    every = known(build_parser())
    assert every >= {"run", "image", "kernel", "store", "shell", "console", "doctor"}
    for name in every:
        assert name in known(build_parser(name)) < every


#: What takes long to load, and who starts quickly without it: help, and a command until its guest has been started.
HEAVY = frozenset(
    {"asyncio", "capstone", "cryptography", "elftools", "numpy", "paramiko", "pycdlib", "_pytest", "qemu"}
)


def loaded_by(words: Sequence[str]) -> set[str]:
    """Return the modules that dfly-harness has loaded when it has understood WORDS."""
    code = """
import atexit, sys
from harness.cli import build_parser, main
from harness.cli.commands import SUMMARIES
words = sys.argv[1:]
atexit.register(lambda: print("loaded:", *sys.modules))
main(words) if words[-1].startswith("--") else build_parser(words[0])
"""
    shown = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True).stdout
    return set(shown.rpartition("loaded:")[2].split())


def test_run_loads_nothing_of_what_only_other_commands_need() -> None:
    shown = loaded_by(["run"])
    assert "harness.cli.run" in shown
    assert not {"numpy", "pycdlib", "harness.cli.bisect"} & shown


@pytest.mark.parametrize("words", [["--help"], ["--version"]], ids=" ".join)
def test_help_loads_no_command(words: Sequence[str]) -> None:
    shown = loaded_by(words)
    assert "harness.cli.commands" in shown
    assert not {"harness.cli.run", "harness.cli.guests", "harness.store", "rich", *HEAVY} & shown


@pytest.mark.parametrize("words", [["shell", "--help"], ["shell"]], ids=" ".join)
def test_shell_loads_what_its_guest_needs_when_the_guest_is_being_started(words: Sequence[str]) -> None:
    shown = loaded_by(words)
    assert "harness.cli.guests" in shown
    assert not HEAVY & shown


def test_help_names_every_command(cli: Cli) -> None:
    status, output, _ = cli.run("--help")
    assert status == 0
    words = " ".join(output.split())
    for name, summary in SUMMARIES.items():
        assert f" {name} {summary} " in words


def test_an_option_before_the_command_is_a_mistake(cli: Cli) -> None:
    status, _, errors = cli.run("-x", "shell", "true")
    assert status == 2
    assert errors.splitlines()[-1] == "dfly-harness: error: unrecognized arguments: -x"


def test_a_kernel_that_is_not_in_the_store(cli: Cli) -> None:
    assert_one_line(cli.run("run", "--kernel", "README.md"), 2, "image")


def test_a_kernel_that_is_not_in_the_store_beside_an_image(cli: Cli, disk: Path, ssh_key: Path) -> None:
    assert cli.run("image", "import", "base", "--disk", str(disk), "--ssh-key", str(ssh_key))[0] == 0
    assert_one_line(cli.run("run", "--kernel", "README.md"), 2, "no kernel 'README.md' in the store (there: none yet)")


def test_an_image_that_is_not_in_the_store(cli: Cli) -> None:
    assert_one_line(cli.run("run", "--image", "nope"), 2, "no image 'nope' in the store (there: none yet)")


def test_a_file_that_is_no_kernel(cli: Cli) -> None:
    assert_one_line(cli.run("kernel", "import", "x", str(README)), 2, "README.md", "not an ELF file")


def test_a_kernel_file_that_does_not_exist(cli: Cli) -> None:
    assert_one_line(cli.run("kernel", "import", "x", "/nonexistent"), 2, "/nonexistent")


def test_a_disk_that_is_no_disk(cli: Cli, ssh_key: Path) -> None:
    result = cli.run("image", "import", "x", "--disk", str(README), "--ssh-key", str(ssh_key))
    assert_one_line(result, 2, "README.md", "not a disk image")
    assert not list((cli.home / "images").glob("*"))


def test_a_disk_that_does_not_exist(cli: Cli, ssh_key: Path) -> None:
    result = cli.run("image", "import", "x", "--disk", "/nonexistent", "--ssh-key", str(ssh_key))
    assert_one_line(result, 2, "/nonexistent does not exist")


def test_a_key_that_is_no_key(cli: Cli, disk: Path) -> None:
    result = cli.run("image", "import", "x", "--disk", str(disk), "--ssh-key", str(README))
    assert_one_line(result, 2, "README.md is not a private SSH key")


def test_a_name_taken_already(cli: Cli, disk: Path, ssh_key: Path) -> None:
    arguments = ("image", "import", "base", "--disk", str(disk), "--ssh-key", str(ssh_key))
    assert cli.run(*arguments)[0] == 0
    assert_one_line(cli.run(*arguments), 2, "image 'base' exists already")


def test_an_image_is_listed_shown_and_removed(cli: Cli, disk: Path, ssh_key: Path) -> None:
    assert cli.run("image", "import", "base", "--disk", str(disk), "--ssh-key", str(ssh_key), "--user", "me")[0] == 0
    assert "UFS1 file system, root ufs:vbd0, login me" in cli.run("image", "list")[1]
    assert '"user": "me"' in cli.run("image", "show", "base")[1]
    keys = [blob for blob in (cli.home / "blobs").iterdir() if b"PRIVATE KEY" in blob.read_bytes()[:100]]
    assert [oct(key.stat().st_mode & 0o777) for key in keys] == ["0o400"]
    assert cli.run("image", "remove", "base")[0] == 0
    assert not list((cli.home / "blobs").iterdir())
    assert_one_line(cli.run("image", "remove", "base"), 2, "no image 'base'")


def test_tests_that_do_not_exist(cli: Cli) -> None:
    assert_one_line(cli.run("run", "--control", "--image", "x"), 2, "--control is a target of its own")


def test_an_impossible_machine(cli: Cli) -> None:
    assert_one_line(cli.run("run", "--memory", "1"), 2, "at least 128 MiB")


def test_an_option_that_does_not_exist(cli: Cli) -> None:
    assert_one_line(cli.run("image", "list", "--frobnicate"), 2, "unrecognized arguments: --frobnicate")


def test_a_store_that_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cli.environment["DFLY_HARNESS_HOME"] = str(tmp_path / "file" / "store")
    assert_one_line(cli.run("image", "list"), 3, "DFLY_HARNESS_HOME")


class TestFetching:
    """The parts of `image fetch` and `image build` that need neither network nor machine."""

    @pytest.fixture
    def manifest(self, tmp_path: Path) -> Path:
        """Return a manifest whose only mirror is a port on which nobody listens."""
        file = tmp_path / "mine.toml"
        file.write_text('release = "9.9.9"\nmirrors = ["http://127.0.0.1:1/"]\n[[media]]\nfile = "x.iso"\n')
        return file

    @pytest.fixture
    def iso(self, tmp_path: Path) -> Path:
        content = bytearray(1 << 17)
        content[16 * 2048 + 1 : 16 * 2048 + 6] = b"CD001"
        file = tmp_path / "x.iso"
        file.write_bytes(content)
        return file

    def test_offline_names_the_file_to_bring(self, cli: Cli, manifest: Path) -> None:
        result = cli.run("image", "fetch", str(manifest))
        assert_one_line(result, 3, "no mirror can be reached", "bring x.iso", "--from x.iso")

    def test_a_file_that_was_brought_is_pinned_and_said_so(self, cli: Cli, manifest: Path, iso: Path) -> None:
        status, output, errors = cli.run("image", "fetch", str(manifest), "--from", str(iso))
        assert status == 0, errors
        assert "x.iso: in the store as 9.9.9; sha256 pinned on first use" in output
        assert "no published checksum of x.iso is known" in errors
        assert cli.run("image", "fetch", str(manifest))[0] == 0, "nothing is fetched twice"

    def test_prune_keeps_the_cd_unless_told(self, cli: Cli, manifest: Path, iso: Path) -> None:
        cli.run("image", "fetch", str(manifest), "--from", str(iso))
        assert cli.run("store", "prune")[0] == 0
        assert len(list((cli.home / "blobs").iterdir())) == 1
        assert cli.run("store", "prune", "--media")[0] == 0
        assert list((cli.home / "blobs").iterdir()) == []

    def test_an_unknown_release(self, cli: Cli) -> None:
        assert_one_line(cli.run("image", "build", "3.1"), 2, "no release '3.1' is known (there: 6.4.2, ")

    def test_an_impossible_disk(self, cli: Cli) -> None:
        assert_one_line(cli.run("image", "build", "6.4.2", "--disk-size", "1"), 2, "a disk of 64 MiB")

    def test_an_import_without_a_way_in(self, cli: Cli, disk: Path) -> None:
        assert_one_line(cli.run("image", "import", "x", "--disk", str(disk)), 2, "say how to log in")

    def test_releases_say_whose_checksum_is_trusted(self, cli: Cli) -> None:
        status, output, _ = cli.run("image", "releases")
        assert status == 0
        assert "6.4.2" in output
        assert "nobody: pinned on first use" in output


@pytest.mark.on_vm
class TestWithTheControlGuest:
    """What needs a machine that gets as far as starting; the parts of the control guest come from the user's cache."""

    @pytest.fixture
    def control_cli(self, cli: Cli) -> Cli:
        """Return a command line whose store is new but for the cache with the control guest."""
        from harness.store import Store

        cache = Store().cache
        cli.home.mkdir(parents=True)
        (cli.home / "cache").symlink_to(cache)
        return cli

    @staticmethod
    def machines(cli: Cli) -> list[str]:
        """Return what is left of machines: folders, and QEMU processes that work in them."""
        run = cli.home / "run"
        left = [folder.name for folder in run.iterdir()] if run.exists() else []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if Path(os.readlink(process / "cwd")).is_relative_to(run):
                    left.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return left

    def test_a_command_runs_in_the_guest_and_its_status_is_ours(self, control_cli: Cli) -> None:
        status, output, errors = control_cli.run("shell", "--control", "echo out; echo err >&2; exit 7")
        assert (status, output) == (7, "out\n"), errors
        assert "err" in errors
        assert "CONTROL, NOT DRAGONFLY" in errors
        assert self.machines(control_cli) == []

    def test_a_port_that_is_taken(self, control_cli: Cli) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            result = control_cli.run("shell", "--control", "--ssh-port", port, "true")
        assert_one_line(result, 2, f"port {port} on 127.0.0.1 is taken")
        assert self.machines(control_cli) == []

    def test_qemu_that_is_not_installed(self, control_cli: Cli, tmp_path: Path) -> None:
        tools = tmp_path / "bin"
        tools.mkdir()
        for name in ("gcc", "as", "ld", "cc", "dpkg-deb", "apt-cache", "apt-get"):
            if found := shutil.which(name):
                (tools / name).symlink_to(found)
        control_cli.environment["PATH"] = str(tools)
        result = control_cli.run("shell", "--control", "true")
        assert_one_line(result, 3, "qemu-system-x86_64 is not installed", "doctor --fix")

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_an_interrupt_in_mid_boot(self, control_cli: Cli, number: int, status: int) -> None:
        with control_cli.start("shell", "--control", "sleep 1000") as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "booting" in line:
                    break
            assert self.machines(control_cli)
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
        assert process.returncode == status
        assert "Traceback" not in errors
        assert "all machines are stopped" in errors.strip().splitlines()[-1]
        assert self.machines(control_cli) == []


@pytest.mark.parametrize("count", ["-1", "999"])
def test_nobody_starts_a_thousand_workers(cli: Cli, count: str) -> None:
    status, output, errors = cli.run("run", "--oracle", "-n", count, "-k", "setsid")
    assert status == 2, output + errors
    assert f"-n {count}: a host with " in output + errors
    assert "created" not in output


@pytest.mark.parametrize("count", ["many", "1.5"])
def test_a_number_of_workers_that_is_none_takes_one_line(cli: Cli, count: str) -> None:
    assert_one_line(cli.run("run", "--oracle", "-n", count, "-k", "setsid"), 2, count, "auto")


def test_a_whole_suite_has_two_workers_where_cores_allow_and_few_tests_have_none() -> None:
    parser = build_parser("run")

    def count(*words: str) -> str:
        options, rest = parser.parse_known_args(["run", *words, "--oracle"])
        return _default_workers(options, RunOptions.read(options), PytestWords.split(rest))

    assert count() == ("2" if available_cores() > 1 else "")
    for words in (("-k", "setsid"), ("conformance/test_wait.py",), ("-x",), ("-s",), ("--function", "pgrel")):
        assert count(*words) == "", words


def test_a_file_for_junit_that_cannot_be_written_is_told_before_the_first_test(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, output, errors = cli.run("run", "--oracle", "-k", "setsid", f"--junitxml={tmp_path / 'file' / 'x.xml'}")
    assert status == 2, output + errors
    assert "--junitxml: " in errors
    assert "passed" not in output


def test_ctrl_c_before_anything_has_begun_is_one_line(tmp_path: Path) -> None:
    """The moment is chosen by what is loaded then, not by a clock."""
    code = (
        "import builtins, os, signal, sys\n"
        "load, name = builtins.__import__, sys.argv.pop(1)\n"
        "def loading(wanted, *rest):\n"
        "    if wanted == name:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return load(wanted, *rest)\n"
        "from harness.start import main\n"
        "builtins.__import__ = loading\n"
        "sys.exit(main())\n"
    )
    for name in ("harness.cli", "rich.console", "harness.errors", "harness.cli.options", "harness.images.base"):
        done = subprocess.run(
            [sys.executable, "-c", code, name, "image", "list"],
            env={**os.environ, "DFLY_HARNESS_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 130, (name, done)
        assert done.stderr == "dfly-harness: interrupted; nothing had begun\n", name


def test_an_unknown_variant_is_answered_by_those_of_similar_names(cli: Cli) -> None:
    status, _, errors = cli.run("compare", "oracle", "oracle:setsid-for-leader", "-k", "setsid")
    assert status == 2
    assert "did you mean setsid-for-leaders" in errors
    assert len(errors) < 400


@pytest.mark.parametrize("name", ["installed", "control", "oracle"])
def test_a_kernel_is_not_called_what_means_something_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="means something else where a kernel is named"):
        Store(tmp_path).put(Kernel(name, "0" * 64, "DragonFly v6"))


@pytest.mark.parametrize(
    "words",
    [
        ["kernel", "import", "k", "{}"],
        ["kernel", "import", "k", "/bin/true", "--debug", "{}"],
        ["image", "import", "i", "--disk", "{}"],
        ["image", "import", "i", "--disk", "/bin/true", "--ssh-key", "{}"],
        ["image", "fetch", "6.4.2", "--from", "{}"],
    ],
    ids=" ".join,
)
def test_a_pipe_where_a_file_is_kept_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SystemExit) as ended:
        main([word.format(tmp_path / "pipe") for word in words])
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().endswith("is no regular file")


def test_what_is_freed_and_what_is_damaged_is_told_as_json(cli: Cli) -> None:
    status, output, _ = cli.run("store", "prune", "--json")
    assert (status, list(json.loads(output))) == (0, ["freed"])
    status, output, _ = cli.run("store", "verify", "--json")
    assert (status, json.loads(output)) == (0, {"damaged_blobs": [], "damaged_warm_states": [], "damaged_cache": []})


@pytest.mark.parametrize("word", ["mine/test_mine.py", "test_mine.py", "conformance/test_wait.py::test_x"])
def test_tests_among_the_kernels_to_compare_are_told_from_them(cli: Cli, word: str) -> None:
    assert_one_line(cli.run("compare", "oracle", word), 2, f"{word} is no kernel", f"--suite {word}")


#: A command that is ended while it waits for a module that another thread loads; says where it is told of that.
LOADS = """
import argparse, sys, threading, time
from harness import cli

def action(options):
    threading.Thread(target=__import__, args=["slow"]).start()
    time.sleep(0.1)
    try:
        import slow
    except KeyboardInterrupt:
        print("while it is loaded")
        raise
    time.sleep(20)

parsed = argparse.Namespace(action=action), []
cli.build_parser = lambda command: argparse.Namespace(parse_known_args=lambda words: parsed)
sys.exit(cli.main(["load"]))
"""


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_while_a_module_is_loaded_is_told_behind_that(tmp_path: Path, number: int, word: str) -> None:
    """Python may drop an exception in its own code there, and keep a lock for ever that another thread waits for."""
    (tmp_path / "slow.py").write_text(
        f"import os, time; time.sleep(0.5); os.kill(os.getpid(), {number}); time.sleep(0.5)"
    )
    argv = [sys.executable, "-c", LOADS]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (128 + number, ""), done
    assert word in done.stderr
