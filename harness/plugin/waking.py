# SPDX-License-Identifier: BSD-2-Clause
"""What pytest finds by itself where the harness is installed: nothing, until one of our options is given.

An installed plugin is loaded by every pytest in its environment.  Ours decides how a run ends and takes programs for
tests, which nobody wants who tests something else: so this module stands for it, and loads it for a command line, or
`addopts`, with an option that begins with `--dfly-`.
"""

from __future__ import annotations

import pytest

from harness.options import PYTEST_PREFIX

_PLUGIN = "harness.plugin.entry"
_AWAKE = pytest.StashKey[bool]()


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Load the plugin where ARGS have one of its options: pytest parses them for good after this."""
    if any(word.startswith(f"--{PYTEST_PREFIX}") for word in args):
        early_config.stash[_AWAKE] = True
        early_config.pluginmanager.import_plugin(_PLUGIN)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let workers of pytest-xdist, whose arguments are tests alone, have the plugin, too."""
    if config.stash.get(_AWAKE, False) and _PLUGIN not in config.option.plugins:
        config.option.plugins.append(_PLUGIN)
