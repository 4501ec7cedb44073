# SPDX-License-Identifier: BSD-2-Clause
"""dfly-harness: boots real DragonFly BSD kernels and holds kern_proc.c to its word."""


def __getattr__(name: str) -> str:
    """Return the version when somebody asks: finding it out takes longer than most of what each command does first."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dfly-harness")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"
