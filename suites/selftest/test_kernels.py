# SPDX-License-Identifier: BSD-2-Clause
"""From sources to kernels: every way in names the same tree, patches apply as git would, nothing is built twice."""

from __future__ import annotations

import os
import shlex
import subprocess
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from testkernel import VERSION
from testkernel import build_kernel as build_test_kernel

from harness.errors import ExitCode, HarnessError, UsageError
from harness.kernels.artefact import Kernel, import_kernel
from harness.kernels.build import (
    Build,
    BuildFailedError,
    CommandBuilder,
    build_kernel,
    build_key,
    compiler_of,
    first_error,
    name_build,
)
from harness.kernels.patch import PatchError, apply_patches
from harness.kernels.source import KERN_PROC, SourceTree, open_source
from harness.store import Store, digest_of

KERN_PROC_TEXT = """/* The process table of a kernel that is none. */
#define DELAY 10

int
procinit(void)
{
\treturn DELAY;
}

int
pfind(int pid)
{
\treturn pid;
}

int
enterpgrp(int pgid)
{
\treturn pgid;
}
"""


def diff(old: str, new: str, path: str = KERN_PROC, *, prefixes: tuple[str, str] = ("a/", "b/")) -> str:
    import difflib

    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), prefixes[0] + path, prefixes[1] + path
    )
    return "".join(lines)


DELAY_3 = KERN_PROC_TEXT.replace("DELAY 10", "DELAY 3")
BROKEN = KERN_PROC_TEXT.replace("return pid;", "return pid")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a folder that looks like DragonFly's sources."""
    top = tmp_path / "dragonfly"
    (top / KERN_PROC).parent.mkdir(parents=True)
    (top / KERN_PROC).write_text(KERN_PROC_TEXT)
    (top / "sys/kern/crlf.c").write_bytes(b"int a;\r\nint b;\r\n")
    (top / "Makefile.inc1").write_text("nativekernel:\n")
    (top / ".gitattributes").write_text("*.c text eol=lf\n*.c export-ignore\n")
    (top / ".gitignore").write_text("*.inc\nsys/kern\n")
    (top / "sys/machine").symlink_to("cpu")
    return top


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "core.autocrlf=false"]
    argv = ["git", "-C", str(folder), *settings, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def written(source: SourceTree, folder: Path) -> dict[str, bytes]:
    source.write_to(folder)
    return {
        str(file.relative_to(folder)): os.readlink(file).encode() if file.is_symlink() else file.read_bytes()
        for file in folder.rglob("*")
        if file.is_symlink() or file.is_file()
    }


class TestSources:
    """Directories, revisions and archives."""

    def test_what_is_written_out_is_what_was_read_whatever_attributes_say(
        self, store: Store, tree: Path, tmp_path: Path
    ) -> None:
        files = written(open_source(store, tree), tmp_path / "out")
        assert files[KERN_PROC] == KERN_PROC_TEXT.encode()
        assert files["sys/kern/crlf.c"] == b"int a;\r\nint b;\r\n"
        assert files["sys/machine"] == b"cpu"
        assert files.keys() == {
            KERN_PROC, "sys/kern/crlf.c", "sys/machine", "Makefile.inc1", ".gitattributes", ".gitignore"
        }  # fmt: skip

    def test_a_tree_is_named_by_its_content(self, store: Store, tree: Path, tmp_path: Path) -> None:
        first = open_source(store, tree).tree
        copy = tmp_path / "copy"
        subprocess.run(["cp", "-a", str(tree), str(copy)], check=True)
        assert open_source(store, copy).tree == first
        (tree / KERN_PROC).write_text(DELAY_3)
        assert open_source(store, tree).tree != first
        (tree / KERN_PROC).write_text(KERN_PROC_TEXT)
        assert open_source(store, tree).tree == first

    def test_a_store_that_lies_in_the_sources_is_none_of_them(self, tree: Path, tmp_path: Path) -> None:
        # As in a CI job whose cache has to lie in the project's folder.
        plain = open_source(Store(tmp_path / "store"), tree).tree
        inside = Store(tree / ".store [1]*")
        assert [open_source(inside, tree).tree for _ in range(2)] == [plain, plain]
        (tree / KERN_PROC).write_text(DELAY_3)
        assert open_source(inside, tree).tree != plain

    def test_a_revision_an_archive_and_a_folder_are_one_tree(self, store: Store, tree: Path, tmp_path: Path) -> None:
        (tree / ".gitattributes").unlink()
        (tree / ".gitignore").unlink()
        folder = open_source(store, tree).tree
        archive = tmp_path / "src-sys.tar.bz2"
        with tarfile.open(archive, "w:bz2") as tar:
            tar.add(tree, arcname="src")
        assert open_source(store, archive).tree == folder
        assert open_source(store, archive).tree == folder  # remembered
        git(tree, "init", "-q")
        git(tree, "add", "-A")
        git(tree, "commit", "-q", "-m", "one")
        (tree / KERN_PROC).write_text(DELAY_3)
        revision = open_source(store, tree, "HEAD")
        assert revision.tree == folder
        assert "at HEAD" in revision.origin
        assert written(revision, tmp_path / "out")[KERN_PROC] == KERN_PROC_TEXT.encode()
        assert open_source(store, tree).tree != folder

    def test_a_revision_can_be_patched_without_a_checkout(self, store: Store, tree: Path, tmp_path: Path) -> None:
        git(tree, "init", "-q")
        git(tree, "add", "-A", "-f")
        git(tree, "commit", "-q", "-m", "one")
        patch = tmp_path / "p"
        patch.write_text(diff(KERN_PROC_TEXT, DELAY_3))
        patched = apply_patches(open_source(store, tree, "HEAD"), [patch])
        assert patched.read(KERN_PROC) == DELAY_3.encode()
        assert (tree / KERN_PROC).read_text() == KERN_PROC_TEXT
        assert git(tree, "status", "--porcelain") == ""

    @pytest.mark.parametrize(
        ("where", "revision", "complaint"),
        [
            ("nowhere", None, "nowhere does not exist"),
            ("empty", None, "holds no DragonFly sources (no sys/kern/kern_proc.c)"),
            ("dragonfly/sys", None, "did you mean"),
            ("dragonfly/Makefile.inc1", None, "neither a folder nor an archive"),
            ("fake.tar.bz2", None, "is no archive of sources"),
            ("dragonfly", "HEAD", "is no git repository"),
            ("repository", "nope", "has no revision 'nope'"),
            ("repository", "HEAD", "holds no DragonFly sources"),
            ("bare", None, "is a bare repository: say which revision (--rev)"),
        ],
    )
    @pytest.mark.usefixtures("tree")
    def test_sources_that_are_none(
        self, store: Store, tmp_path: Path, where: str, revision: str | None, complaint: str
    ) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "fake.tar.bz2").write_bytes(b"no archive")
        (tmp_path / "repository").mkdir()
        git(tmp_path / "repository", "init", "-q")
        git(tmp_path / "repository", "commit", "-q", "--allow-empty", "-m", "one")
        git(tmp_path, "init", "-q", "--bare", "bare")
        with pytest.raises(UsageError) as caught:
            open_source(store, tmp_path / where, revision)
        assert complaint in str(caught.value)


class TestPatches:
    """Diffs and replacement files."""

    def apply(self, store: Store, tree: Path, *texts: str | bytes) -> SourceTree:
        files = []
        for number, text in enumerate(texts):
            file = tree.parent / f"patch{number}"
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
            files.append(file)
        return apply_patches(open_source(store, tree), files)

    @pytest.mark.parametrize(
        ("path", "prefixes"),
        [
            (KERN_PROC, ("a/", "b/")),
            (KERN_PROC, ("", "")),
            ("kern/kern_proc.c", ("a/", "b/")),
            ("kern_proc.c", ("", "")),
            ("kern_proc.c", ("kern.orig/", "kern/")),
        ],
    )
    def test_a_diff_may_be_made_anywhere(self, store: Store, tree: Path, path: str, prefixes: tuple[str, str]) -> None:
        patched = self.apply(store, tree, diff(KERN_PROC_TEXT, DELAY_3, path, prefixes=prefixes))
        assert patched.read(KERN_PROC) == DELAY_3.encode()
        assert (tree / KERN_PROC).read_text() == KERN_PROC_TEXT

    def test_a_whole_kern_proc_c_is_a_patch_and_the_same_one_as_its_diff(self, store: Store, tree: Path) -> None:
        by_diff = self.apply(store, tree, diff(KERN_PROC_TEXT, DELAY_3))
        by_file = self.apply(store, tree, DELAY_3)
        assert by_diff.tree == by_file.tree
        assert by_diff.base_tree == by_file.base_tree == open_source(store, tree).tree
        assert by_file.changed_since(by_file.base_tree) == {KERN_PROC: True}

    def test_patches_apply_one_on_the_other(self, store: Store, tree: Path) -> None:
        further = DELAY_3.replace("DELAY 3", "DELAY 5")
        patched = self.apply(store, tree, diff(KERN_PROC_TEXT, DELAY_3), diff(DELAY_3, further))
        assert patched.read(KERN_PROC) == further.encode()
        assert [patch.split()[0] for patch in patched.patches] == ["patch0", "patch1"]

    def test_files_are_added_and_removed(self, store: Store, tree: Path, tmp_path: Path) -> None:
        text = "--- /dev/null\n+++ b/sys/kern/new.c\n@@ -0,0 +1 @@\n+int x;\n"
        text += "--- a/sys/kern/crlf.c\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-int a;\r\n-int b;\r\n"
        patched = self.apply(store, tree, text)
        assert patched.changed_since(patched.base_tree) == {"sys/kern/crlf.c": False, "sys/kern/new.c": True}
        files = written(patched, tmp_path / "out")
        assert files["sys/kern/new.c"] == b"int x;\n"
        assert "sys/kern/crlf.c" not in files

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (("DELAY 10", "DELAY 11"), "line 2 is `#define DELAY 10`, the patch expects `#define DELAY 11`"),
            (("\treturn pgid", "        return pgid"), "line 19 differs in white space: `return pgid;`"),
            (("enterpgrp(int pgid)\n{\n", "enterpgrp(int pgid)\n{\n\tint i;\n"), "the patch expects `int i;`"),
        ],
    )
    def test_a_hunk_that_does_not_fit_is_named_with_the_line(
        self, store: Store, tree: Path, change: tuple[str, str], complaint: str
    ) -> None:
        expected = KERN_PROC_TEXT.replace(*change)
        far = expected.replace("return pid;", "return pid + 0;")
        wanted = far.replace("DELAY 1", "TIME 1").replace("return pgid", "return -pgid")
        patch = diff(expected, wanted)
        with pytest.raises(PatchError) as caught:
            self.apply(store, tree, patch)
        assert "does not apply: hunk " in str(caught.value)
        assert complaint in str(caught.value)
        assert caught.value.exit_code == ExitCode.USAGE

    def test_which_hunk_is_counted(self, store: Store, tree: Path) -> None:
        long = KERN_PROC_TEXT + "\n" * 40 + "int last;\n"
        (tree / KERN_PROC).write_text(long)
        patch = diff(long, long.replace("DELAY 10", "DELAY 3").replace("int last", "int least"))
        (tree / KERN_PROC).write_text(long.replace("int last", "long last"))
        with pytest.raises(PatchError, match=r"hunk 2 of 2 \(sys/kern/kern_proc.c line \d+\): .*`long last;`"):
            self.apply(store, tree, patch)

    def test_the_same_patch_twice_does_not_apply(self, store: Store, tree: Path) -> None:
        patch = diff(KERN_PROC_TEXT, DELAY_3)
        with pytest.raises(PatchError):
            self.apply(store, tree, patch, patch)

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("# Notes\n", "neither a diff nor a kern_proc.c"),
            ("", "neither a diff nor a kern_proc.c"),
            (KERN_PROC_TEXT, "changes nothing"),
            (diff("a\n", "b\n", "sys/kern/gone.c"), "sys/kern/gone.c"),
            (diff(KERN_PROC_TEXT, DELAY_3)[:-40], "corrupt patch"),
        ],
    )
    def test_a_patch_that_is_none(self, store: Store, tree: Path, text: str, complaint: str) -> None:
        with pytest.raises(UsageError) as caught:
            self.apply(store, tree, text)
        assert complaint in str(caught.value)

    def test_a_patch_that_does_not_exist(self, store: Store, tree: Path) -> None:
        with pytest.raises(UsageError, match="does not exist"):
            apply_patches(open_source(store, tree), [tree / "nope"])


class BuildScript:
    """A build command: syntax check of kern_proc.c by gcc, then a kernel that was made before; counts its runs."""

    def __init__(self, folder: Path, kernel: Path) -> None:
        self.script = folder / "build.sh"
        self.runs = folder / "runs"
        self.script.write_text(
            f"#!/bin/sh\necho run >> {shlex.quote(str(self.runs))}\necho building in $PWD\n"
            f"gcc -Wall -c -o /dev/null $1/{KERN_PROC} || exit 3\n"
            f"cp {shlex.quote(str(kernel))} $2\n"
            f"printf '#%s' \"$(sha256sum < $1/{KERN_PROC})\" >> $2\n"
        )
        self.builder = CommandBuilder(f"sh {self.script} {{source}} {{output}}")

    @property
    def count(self) -> int:
        return self.runs.read_text().count("run") if self.runs.exists() else 0


@pytest.fixture
def script(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildScript:
    return BuildScript(tmp_path, build_test_kernel(tmp_path_factory.getbasetemp() / "testkernel"))


class TestBuilding:
    """Builders, the cache of their results, and what is said about failures."""

    def test_the_same_input_is_built_once(self, store: Store, tree: Path, script: BuildScript) -> None:
        first = build_kernel(store, open_source(store, tree), script.builder)
        (tree / "sys/kern/other").touch()
        second = build_kernel(store, open_source(store, tree), script.builder)
        (tree / "sys/kern/other").unlink()
        assert build_kernel(store, open_source(store, tree), script.builder) == first
        assert build_kernel(store, open_source(store, tree), script.builder, retry=True) == first  # it did not fail
        assert (script.count, first.tree == second.tree) == (2, False)
        assert first.elf == second.elf
        assert b"building in" in store.blob(first.log).read_bytes()

    def test_the_compiler_is_read_from_what_it_made(self, tmp_path: Path) -> None:
        (tmp_path / "a.c").write_text("int a;\n")
        subprocess.run(["gcc", "-c", "a.c"], cwd=tmp_path, check=True)
        assert compiler_of(tmp_path / "a.o").startswith("GCC: ")

    def test_each_part_of_the_input_counts(self, store: Store, tree: Path, script: BuildScript) -> None:
        source = open_source(store, tree)
        keys = {build_key(source, "X86_64_GENERIC", script.builder)}
        keys.add(build_key(source, "MINE", script.builder))
        keys.add(build_key(replace(source, tree="0" * 40), "X86_64_GENERIC", script.builder))
        keys.add(build_key(source, "X86_64_GENERIC", CommandBuilder("make {source} {output}")))
        script.script.write_text(script.script.read_text() + "# edited\n")
        keys.add(build_key(source, "X86_64_GENERIC", script.builder))
        assert len(keys) == 5

    def test_two_commands_at_once_build_once(self, store: Store, tree: Path, script: BuildScript) -> None:
        waits = tree.parent / "waits"
        script.script.write_text(
            script.script.read_text() + f"for i in $(seq 600); do test -e {waits} && break; sleep 0.1; done\n"
        )
        source = open_source(store, tree)
        said: list[str] = []
        results: list[Build] = []

        def progress(step: str) -> None:
            said.append(step)
            if step.startswith("waiting for another command"):
                waits.touch()

        def build() -> None:
            results.append(build_kernel(store, source, script.builder, progress=progress))

        threads = [threading.Thread(target=build) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert script.count == 1
        assert results[0] == results[1]
        assert said.count("waiting for another command that builds the same") == 1

    def test_a_failure_shows_the_compilers_first_error_and_is_remembered(
        self, store: Store, tree: Path, script: BuildScript
    ) -> None:
        (tree / KERN_PROC).write_text(BROKEN)
        source = open_source(store, tree)
        with pytest.raises(BuildFailedError) as caught:
            build_kernel(store, source, script.builder)
        assert caught.value.error.startswith("sys/kern/kern_proc.c:13:19: error: expected")
        assert caught.value.exit_code == ExitCode.TEST_FAILED
        assert caught.value.log.read_text().startswith("building in")
        with pytest.raises(BuildFailedError, match="--retry"):
            build_kernel(store, source, script.builder)
        assert script.count == 1
        with pytest.raises(BuildFailedError) as again:
            build_kernel(store, source, script.builder, retry=True)
        assert "--retry" not in str(again.value)
        assert script.count == 2

    @pytest.mark.parametrize(
        ("command", "complaint"),
        [
            ("true {source} {output}", "made no {output}"),
            ("exit 7; {source} {output}", "ended with status 7"),
            ("echo no such rule; false {source} {output}", "no such rule"),
            ("echo text > {output}; true {source}", "what was built is no kernel: out/kernel: not an ELF file"),
        ],
    )
    def test_a_command_that_makes_no_kernel(self, store: Store, tree: Path, command: str, complaint: str) -> None:
        with pytest.raises(BuildFailedError) as caught:
            build_kernel(store, open_source(store, tree), CommandBuilder(command))
        assert complaint in caught.value.error
        assert not list((store.home / "run").iterdir())

    @pytest.mark.parametrize(
        ("command", "complaint"),
        [
            ("mybuild {source} {output}", "not found"),
            ("/dev/null {source} {output}", "cannot be executed"),
            ("echo a.c:1:2: error: x; kill -9 $$; : {source} {output}", "SIGKILL ended the build command"),
            ("sh -c 'kill -9 $$'; exit $?; : {source} {output}", "SIGKILL ended the build command"),
            ("echo 'cc: fatal error: Killed signal terminated program cc1'; false {source} {output}", "program cc1"),
            ("echo 'cc1: out of memory allocating 65536 bytes'; false {source} {output}", "out of memory"),
            ("echo 'make: gcc: not found'; false {source} {output}", "gcc: not found"),
            ("echo 'sh: 1: gcc: not found'; false {source} {output}", "gcc: not found"),
        ],
    )
    def test_a_compiler_that_is_missing_or_killed_is_no_fault_of_the_sources_and_not_remembered(
        self, store: Store, tree: Path, command: str, complaint: str
    ) -> None:
        with pytest.raises(HarnessError, match=complaint) as caught:
            build_kernel(store, open_source(store, tree), CommandBuilder(command))
        assert caught.value.exit_code is ExitCode.HARNESS_FAILED
        assert not isinstance(caught.value, BuildFailedError)
        assert store.all(Build) == []

    def test_a_command_that_never_ends_is_ended_with_all_it_started(self, store: Store, tree: Path) -> None:
        marker = tree.parent / "pid"
        builder = CommandBuilder(f"sleep 100 & echo $! > {marker}; wait; : {{source}} {{output}}", deadline=5)
        with pytest.raises(HarnessError, match="the build command to end"):
            build_kernel(store, open_source(store, tree), builder)
        state = Path(f"/proc/{marker.read_text().strip()}/stat")

        def has_ended() -> bool:
            try:
                return state.read_text().split()[2] == "Z"
            except (FileNotFoundError, ProcessLookupError):
                return True

        end = time.monotonic() + 60
        while not has_ended() and time.monotonic() < end:
            time.sleep(0.01)
        assert has_ended()
        assert store.all(Build) == []  # nothing was found out about the sources

    @pytest.mark.parametrize(
        ("command", "name"),
        [
            ("kill -TERM $$; {source} {output}", "SIGTERM"),
            ("sh -c 'kill -KILL $$'; exit $?; {source} {output}", "SIGKILL"),
        ],
    )
    def test_a_command_that_somebody_kills_says_nothing_about_the_sources(
        self, store: Store, tree: Path, command: str, name: str
    ) -> None:
        with pytest.raises(HarnessError, match=f"{name} ended the build command") as caught:
            build_kernel(store, open_source(store, tree), CommandBuilder(command))
        assert not isinstance(caught.value, BuildFailedError)
        assert store.all(Build) == []

    def test_a_command_without_placeholders(self) -> None:
        with pytest.raises(UsageError, match=r"\{source\} and \{output\}"):
            CommandBuilder("make kernel")

    def test_a_build_survives_prune_and_a_lost_blob_is_built_again(
        self, store: Store, tree: Path, script: BuildScript
    ) -> None:
        build = build_kernel(store, open_source(store, tree), script.builder)
        store.prune()
        assert build.elf is not None
        elf = store.blob(build.elf)
        elf.unlink()
        assert build_kernel(store, open_source(store, tree), script.builder).elf == build.elf
        assert elf.is_file()
        assert script.count == 2

    def test_a_build_becomes_a_kernel(self, store: Store, tree: Path, script: BuildScript, tmp_path: Path) -> None:
        patch = tmp_path / "fix.patch"
        patch.write_text(diff(KERN_PROC_TEXT, DELAY_3))
        build = build_kernel(store, apply_patches(open_source(store, tree), [patch]), script.builder)
        unnamed = name_build(store, build)
        assert unnamed == name_build(store, build) == store.get(Kernel, f"built-{build.name[:12]}")
        assert (unnamed.version, unnamed.imported) == (VERSION, "")
        assert unnamed.source == f"{tree} + fix.patch {digest_of(patch)[:12]}"
        assert name_build(store, build, "mine").name == "mine"
        with pytest.raises(UsageError, match="'mine' exists already"):
            name_build(store, build, "mine")

    def test_modules_are_packed_the_same_each_time(self, store: Store, tmp_path: Path) -> None:
        kernel = build_test_kernel(tmp_path / "cache")
        digests = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            for module in ("zlib.ko", "acpi.ko"):
                (folder / module).write_text(module)
            (folder / "kernel").touch()
            digests.append(import_kernel(store, name, kernel, modules=folder).modules)
        assert digests[0] == digests[1] is not None
        with tarfile.open(store.blob(digests[0] or "")) as tar:
            assert tar.getnames() == ["acpi.ko", "zlib.ko"]
        with pytest.raises(UsageError, match="no kernel modules"):
            import_kernel(store, "three", kernel, modules=tmp_path / "store")


@pytest.mark.parametrize(
    ("log", "error"),
    [
        (
            "cc -c a.c\n/usr/src/sys/kern/a.c: In function 'f':\n/usr/src/sys/kern/a.c:7:3: error: 'x' undeclared\n"
            "/usr/src/sys/kern/b.c:9: error: later\n*** Error code 1\n",
            "sys/kern/a.c:7:3: error: 'x' undeclared",
        ),
        ("a.c:3:10: fatal error: opt_x.h: No such file\n", "a.c:3:10: fatal error: opt_x.h: No such file"),
        ("kern_proc.o: In function `f':\nkern_proc.c:(.text+0x5): undefined reference to `g'\nld: failed\n",
         "kern_proc.c:(.text+0x5): undefined reference to `g'"),
        ("make: don't know how to make nativekernel. Stop\n", "make: don't know how to make nativekernel. Stop"),
        ("make[2]: Entering directory x\nconfig: unknown option FOO\n", "config: unknown option FOO"),
        ("--- a.no ---\ncollect: nothing to do\n*** [a.no] Error code 97\n\nmake[1]: stopped in /obj\n.CURDIR='/obj'\n",
         "collect: nothing to do (*** [a.no] Error code 97)"),
        ("rm: x: no\n*** Error code 1 (ignored)\n", None),
        ("warning: error handling\na.c:1: warning: unused\n", None),
    ],
)  # fmt: skip
def test_the_first_error_of_a_log(log: str, error: str | None) -> None:
    assert first_error(log) == error
