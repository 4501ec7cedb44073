"""Options and fixtures of the test suites; the plugin has them, so that an installed harness has them too."""

from __future__ import annotations

import signal

import pytest

pytest_plugins = ["harness.plugin.entry"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let selftests interrupt what they start: a shell hands SIGINT down ignored to its jobs, nohup SIGHUP."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if "selftest" in item.path.parts and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
