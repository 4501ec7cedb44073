# SPDX-License-Identifier: BSD-2-Clause
"""What the README tells people to do can be done."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from harness.cli import build_parser
from harness.config import share

README = share() / "README.md"
RECIPES = share() / "docs" / "ci.md"


def commands(script: str) -> list[list[str]]:
    """Return the dfly-harness commands of a shell SCRIPT as lists of words."""
    parts = re.split(r"&&|\|\||\n|;", re.sub(r"#.*", "", script))
    words = [shlex.split(part) for part in parts]
    return [line[1:] for line in words if line[:1] == ["dfly-harness"]]


def blocks(language: str, page: Path = README) -> list[str]:
    """Return the code blocks of PAGE in LANGUAGE."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def workflow() -> dict[str, Any]:
    """Return the workflow for GitHub Actions."""
    return loaded_yaml(blocks("yaml", RECIPES)[0])


def loaded_yaml(text: str) -> dict[str, Any]:
    loaded = pytest.importorskip("yaml").safe_load(text)
    assert isinstance(loaded, dict)
    return loaded


def assert_understood(line: list[str]) -> None:
    options, rest = build_parser().parse_known_args(line)
    assert not rest or getattr(options, "takes_rest", False), f"dfly-harness {shlex.join(line)}: {rest}"
    assert all(word.startswith("--junitxml=") for word in rest), rest


def test_the_workflow_is_one_and_its_commands_exist(workflow: dict[str, Any]) -> None:
    assert workflow.keys() == {"name", True, "jobs"}  # to YAML, `on` is a truth value
    (job,) = workflow["jobs"].values()
    assert job["runs-on"]
    steps = job["steps"]
    assert all(len({"uses", "run"} & step.keys()) == 1 for step in steps)
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    lines = [line for step in steps if "run" in step for line in commands(step["run"])]
    assert [line[0] for line in lines] == ["doctor", "image", "image", "run"]
    for line in lines:
        assert_understood(line)
    # What is uploaded is what was written; what is cached is the store.
    written = {Path(word.rpartition("=")[2]).name for word in lines[-1] if re.search(r"run\.\w+$", word)}
    assert written == {"run.json", "run.html", "run.xml"}
    cached = next(step["with"]["path"] for step in steps if "cache" in step.get("uses", ""))
    assert Path(cached).name == "dfly-harness"


@pytest.mark.skipif(not README.exists(), reason="an installed harness has no README")
def test_the_commands_it_shows_exist() -> None:
    lines = [line for block in blocks("sh") for line in commands(block)]
    assert len(lines) > 4
    for line in lines:
        assert_understood(line)


def test_the_recipe_for_gitlab_is_one_and_its_commands_exist() -> None:
    pipeline = loaded_yaml(blocks("yaml", RECIPES)[1])
    (job,) = pipeline.values()
    assert job.keys() >= {"image", "script", "cache", "artifacts"}
    lines = [line for step in job["script"] for line in commands(step)]
    assert [line[0] for line in lines] == ["doctor", "image", "image", "run"]
    for line in lines:
        assert_understood(line)
    written = {word for word in lines[-1] if word.startswith("run.")}
    assert written | {"run.xml"} == {*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"], "run.html"}


def test_the_commands_of_the_recipe_for_jenkins_exist() -> None:
    (text,) = blocks("groovy", RECIPES)
    lines = [line for script in re.findall(r"""sh ["'](.*)["']""", text) for line in commands(script)]
    assert [line[0] for line in lines] == ["run", "report"]
    for line in lines:
        assert_understood([word.replace("${part}", "1") for word in line])
