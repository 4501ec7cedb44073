"""Options and fixtures of the test suites; the plugin has them, so that an installed harness has them too."""

pytest_plugins = ["harness.campaigns.plugin"]
