"""Options and fixtures of the test suites; the plugin has them, so that an installed harness has them too."""

from __future__ import annotations

import signal

import pytest

pytest_plugins = ["harness.campaigns.plugin"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let selftests interrupt what they start: a shell hands SIGINT down ignored to what it runs behind."""
    if "selftest" in item.path.parts and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
