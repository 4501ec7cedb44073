# SPDX-License-Identifier: BSD-2-Clause
"""The recipes for CI are what the systems they are for take, and the steps of the action do what they say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tree_sitter
import tree_sitter_groovy
import yaml
from installed import ROOT, build_wheel, needs_checkout, package_folders

from harness.cli import build_parser
from harness.config import HOME_VARIABLE, share

DOCS = share() / "docs"
RECIPES = DOCS / "ci"
ACTION = ROOT / ".github" / "actions" / "dfly-harness" / "action.yml"
SCHEMAS = {
    "github.yml": "vendor.github-workflows",
    "github-steps.yml": "vendor.github-workflows",
    "gitlab-ci.yml": "vendor.gitlab-ci",
}
STYLE = "{extends: default, rules: {document-start: disable, line-length: {max: 135}, truthy: {check-keys: false}}}"


def loaded(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text())
    assert isinstance(content, dict)
    return content


def commands(script: str) -> list[list[str]]:
    """Return the dfly-harness commands of a shell SCRIPT as lists of words."""
    parts = re.split(r"&&|\|\||\n|;", re.sub(r"#.*|> */dev/null", "", script))
    words = [shlex.split(part) for part in parts]
    return [line[1:] for line in words if line[:1] == ["dfly-harness"]]


def assert_understood(line: list[str]) -> None:
    options, rest = build_parser().parse_known_args(line)
    assert not rest or getattr(options, "takes_rest", False), f"dfly-harness {shlex.join(line)}: {rest}"
    assert all(word.startswith("--junitxml=") for word in rest), rest


def checked(schema: str, file: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", [*SCHEMAS, pytest.param("action", marks=needs_checkout)])
def test_a_recipe_is_what_its_system_takes(tmp_path: Path, name: str) -> None:
    file, schema = (ACTION, "vendor.github-actions") if name == "action" else (RECIPES / name, SCHEMAS[name])
    done = checked(schema, file)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(re.sub(r"(?m)^(\s+)(steps|script):", r"\1stops:", file.read_text()))
    assert checked(schema, wrong).returncode != 0, "a step that nobody runs is told"
    argv = [sys.executable, "-m", "yamllint", "--strict", "-d", STYLE, str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="needs actionlint")
@pytest.mark.parametrize("name", ["github.yml", "github-steps.yml"])
def test_actionlint_finds_nothing(name: str) -> None:
    done = subprocess.run(["actionlint", str(RECIPES / name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def groovy_errors(text: str) -> list[str]:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_groovy.language()))
    found, nodes = [], [parser.parse(text.encode()).root_node]
    for node in nodes:
        nodes += node.children
        found += [f"line {node.start_point.row + 1}"] if node.type == "ERROR" or node.is_missing else []
    return found


def test_the_jenkinsfile_is_groovy_and_its_commands_exist() -> None:
    text = (RECIPES / "Jenkinsfile").read_text()
    assert groovy_errors(text) == []
    assert groovy_errors(text.replace("        }\n", "", 1)), "a bracket that is missing is told"
    scripts = re.findall(r'sh\("(.*)"\)', text)
    lines = [line for script in scripts for line in commands(script)]
    assert [line[0] for line in lines] == ["run", "report"]
    for line in lines:
        assert_understood([word.replace("${part}", "1").replace("${count}", "3") for word in line])


def test_the_commands_of_the_workflow_exist() -> None:
    (job,) = loaded(RECIPES / "github-steps.yml")["jobs"].values()
    lines = [line for step in job["steps"] if "run" in step for line in commands(step["run"])]
    assert [line[0] for line in lines] == ["doctor", "image", "image", "run", "report"]
    for line in lines:
        assert_understood(line)
    # What is uploaded is what was written; what is cached is the store.
    written = {Path(word.rpartition("=")[2]).name for word in lines[3] if re.search(r"run\.\w+$", word)}
    assert written == {"run.json", "run.html", "run.xml"}
    cached = next(step["with"]["path"] for step in job["steps"] if "cache" in step.get("uses", ""))
    assert Path(cached).name == "dfly-harness"


def test_the_commands_for_gitlab_exist() -> None:
    (job,) = loaded(RECIPES / "gitlab-ci.yml").values()
    lines = [line for step in job["script"] for line in commands(step)]
    assert [line[0] for line in lines] == ["doctor", "image", "image", "run"]
    for line in lines:
        assert_understood(line)
    written = {word for word in lines[-1] if word.startswith("run.")}
    assert written | {"run.xml"} == {*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"], "run.html"}


def called(folder: Path, script: str, *, built: bool, status: int) -> tuple[int, list[str]]:
    """Run SCRIPT by sh, where 6.4.2 is there if BUILT and runs come to STATUS: its exit status, and its calls."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    (folder / "dfly-harness").write_text(
        f'#!/bin/sh\necho "$*" >> {log}\n'
        f'case "$1 $2" in "image show") exit {int(not built)};; run*) exit {status};; esac\n'
    )
    (folder / "dfly-harness").chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-ec", script], cwd=folder, env=environment, check=False, timeout=60)
    return done.returncode, [" ".join(line.split()[:2]) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("recipe", ["github-steps.yml", "gitlab-ci.yml"])
def test_a_recipe_builds_what_is_not_there_and_ends_as_the_run_does(tmp_path: Path, recipe: str) -> None:
    (job,) = (loaded(RECIPES / recipe).get("jobs") or loaded(RECIPES / recipe)).values()
    lines = [step["run"] for step in job["steps"] if "run" in step] if "steps" in job else job["script"]
    script = "\n".join(line for line in lines if line.startswith("dfly-harness"))
    rest = ["run --image"] + (["report run.json"] if "steps" in job else [])
    for status in (0, 1):
        ends = rest[:1] if status else rest
        assert called(tmp_path, script, built=True, status=status) == (status, ["image show", *ends])
    assert called(tmp_path, script, built=False, status=0) == (0, ["image show", "image build", *rest])


def test_a_part_that_speaks_against_the_kernel_does_not_end_the_jenkinsfile(tmp_path: Path) -> None:
    part, whole = re.findall(r'\bsh\("(.*)"\)', (RECIPES / "Jenkinsfile").read_text())
    part = part.replace("${part}", "1").replace("${count}", "3").replace("\\$", "$")
    for status, ends in ((0, 0), (1, 0), (2, 1), (3, 1)):
        assert called(tmp_path, part, built=True, status=status) == (ends, ["run --image"])
    assert called(tmp_path, whole.replace("${records}", "1.json"), built=True, status=0) == (0, ["report --merge"])


def test_the_page_quotes_the_recipes_as_they_are() -> None:
    page = (DOCS / "ci.md").read_text()
    quoted = re.findall(r"^```(?:yaml|groovy)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert quoted == [(RECIPES / name).read_text() for name in [*SCHEMAS, "Jenkinsfile"]]


@needs_checkout
def test_the_page_names_the_inputs_of_the_action() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \| `?(.*?)`? ?\|$", (DOCS / "ci.md").read_text(), re.MULTILINE)
    action = loaded(ACTION)["inputs"]
    assert rows == [(name, each["description"], each["default"]) for name, each in action.items()]
    (job,) = loaded(RECIPES / "github.yml")["jobs"].values()
    (used,) = (step for step in job["steps"] if "dfly-harness" in step["uses"])
    assert used["with"].keys() <= action.keys()
    assert (ROOT / used["uses"].split("@")[0].split("/", 2)[2] / "action.yml").samefile(ACTION)


@dataclass
class Runner:
    """Runs the steps of the action as GitHub's runner does, but with nothing in the environment that it does not give.

    An expression that it does not know is an error.  Steps that use other actions are left out.
    """

    folder: Path
    inputs: Mapping[str, str]
    variables: dict[str, str]
    path: list[str] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    #: Steps that have a store of their own.
    kept_from: dict[str, Path] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def run(self) -> int:
        """Run all steps; return the exit status of the first that fails, after which only `always()` is run."""
        status = 0
        for step in loaded(ACTION)["runs"]["steps"]:
            if (
                "run" in step
                and step["name"] not in self.left_out
                and self._is_wanted(step.get("if", "success()"), status)
            ):
                ended = self._step(step)
                status = status or ended
        return status

    def _is_wanted(self, condition: str, status: int) -> bool:
        known = {"always()": True, "success()": not status, "inputs.image != ''": not status and self.inputs["image"]}
        return bool(known[condition])

    def _value(self, text: str) -> str:
        known = {f"inputs.{name}": value for name, value in self.inputs.items()}
        known |= {"runner.temp": str(self.folder / "temp")}
        checkout = "inputs.package || format('{0}/../../..', github.action_path)"
        known[checkout] = self.inputs["package"] or f"{ACTION.parent}/../../.."
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda match: known[match[1]], text)

    def _step(self, step: Mapping[str, Any]) -> int:
        files = {name: self.folder / "temp" / name for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT")}
        files["GITHUB_STEP_SUMMARY"] = self.folder / "summary.md"
        for name, file in files.items():
            if name != "GITHUB_STEP_SUMMARY":
                file.write_text("")
        environment = {
            "HOME": str(self.folder / "home"),
            "PATH": ":".join([*self.path, str(Path(sys.executable).parent), "/usr/sbin:/usr/bin:/sbin:/bin"]),
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(self.folder / "work"),
            **{name: str(file) for name, file in files.items()},
            **self.variables,
            **{name: self._value(value) for name, value in step.get("env", {}).items()},
        }
        if (store := self.kept_from.get(step["name"])) is not None:
            environment[HOME_VARIABLE] = str(store)
        script = self.folder / "temp" / "step.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            ["sh", "-e", str(script)], cwd=self.folder / "work", env=environment, capture_output=True, text=True,
            check=False, timeout=580,
        )  # fmt: skip
        self.said[step["name"]] = done.stdout + done.stderr
        self.path[:0] = files["GITHUB_PATH"].read_text().split()
        self.variables |= dict(line.split("=", 1) for line in files["GITHUB_ENV"].read_text().splitlines())
        self.outputs |= dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        return done.returncode


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def runner(tmp_path: Path, wheel: Path) -> Runner:
    """Return one for an action that lies in this checkout; what the wheel depends on is lent, and nothing fetched."""
    for name in ("home", "work", "temp"):
        (tmp_path / name).mkdir()
    defaults = {name: each["default"] for name, each in loaded(ACTION)["inputs"].items()}
    lent = {"PYTHONPATH": ":".join(package_folders()), "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
    return Runner(tmp_path, {**defaults, "image": "", "package": str(wheel)}, lent)


MINE = """\
def test_fails(init):
    child = init.fork()
    assert child.getpid() == 1


def test_passes(init):
    assert init.getpid()
"""


@needs_checkout
def test_the_action_says_of_a_failure_where_it_is(runner: Runner) -> None:
    (runner.folder / "work" / "test_mine.py").write_text(MINE)
    runner.inputs = {**runner.inputs, "arguments": "--oracle 2026 'test_mine.py'", "store": "~/kept"}
    assert runner.run() == 1, runner.said
    assert runner.outputs == {"status": "1", "record": "kern_proc.json"}
    assert "::error file=test_mine.py,line=3,title=failed%3A test_mine.py%3A%3Atest_fails::" in runner.said["Test"]
    assert "| failed | 1 |" in (runner.folder / "summary.md").read_text()
    assert runner.variables[HOME_VARIABLE] == str(runner.folder / "home" / "kept")
    assert (runner.folder / "home" / "kept" / "results").is_dir()
    assert {file.suffix for file in (runner.folder / "work").glob("kern_proc.*")} == {".json", ".html", ".xml"}
    assert runner.path == [str(runner.folder / "temp" / "dfly-harness" / "bin")]


@needs_checkout
def test_an_action_that_is_called_wrongly_says_so(runner: Runner) -> None:
    runner.inputs = {**runner.inputs, "arguments": "--oracle 2026 test_none.py"}
    assert runner.run() == 2, runner.said
    assert runner.outputs["status"] == "2"
    assert "no test test_none.py" in runner.said["Test"]


@needs_checkout
@pytest.mark.parametrize(("built", "status"), [(False, 0), (True, 0), (True, 1)])
def test_the_action_calls_the_harness_as_its_inputs_say(runner: Runner, built: bool, status: int) -> None:
    tools, log = runner.folder / "bin", runner.folder / "log"
    tools.mkdir()
    fake = tools / "dfly-harness"
    fake.write_text(
        f'#!/bin/sh\nprintf "%s|" "$@" >> {log}; echo >> {log}\n'
        f'case "$1 $2" in "image show") exit {int(not built)};; run*) touch kern_proc.json; exit {status};; esac\n'
    )
    fake.chmod(0o755)
    runner.path, runner.left_out = [str(tools)], ("Install",)
    runner.inputs = {**runner.inputs, "image": "6.4.2", "source": "src", "arguments": "-n 2 -k 'wait and not \"x y\"'"}
    assert runner.run() == status, runner.said
    words = ["--image", "6.4.2", "--source", "src", "-n", "2", "-k", 'wait and not "x y"', "--json", "kern_proc.json"]
    assert [line.rstrip("|").split("|") for line in log.read_text().splitlines()] == [
        ["doctor", "--fix"],
        ["image", "show", "6.4.2"],
        *([] if built else [["image", "build", "6.4.2"]]),
        ["run", *words, "--html", "kern_proc.html", "--junitxml=kern_proc.xml"],
        ["report", "kern_proc.json", "--github"],
        ["store", "prune"],
    ]


@needs_checkout
@pytest.mark.on_vm
def test_the_action_tests_a_machine(runner: Runner) -> None:
    # The store of the selftests, as a cache that was found: a new one would have to fetch the control guest.  It is not
    # pruned, as others use what lies in it.
    store = os.environ[HOME_VARIABLE]
    runner.inputs = {**runner.inputs, "arguments": "--control -k 'test_wait and zombie' -n 1", "store": store}
    runner.kept_from["Keep what the next run needs"] = runner.folder / "store"
    assert runner.run() == 0, runner.said
    assert "CONTROL, NOT DRAGONFLY" in runner.said["Test"]
    assert runner.outputs["status"] == "0"
