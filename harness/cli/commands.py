# SPDX-License-Identifier: BSD-2-Clause
"""All commands, and which module has them: each starts fast, as only its own is loaded."""

from __future__ import annotations

from collections.abc import Mapping

#: By module below harness.cli: its commands, and what each does.
MODULES: Mapping[str, Mapping[str, str]] = {
    "run": {
        "run": "Run the conformance suite, or the tests in PATH, on a target.",
    },
    "replay": {
        "replay": "Repeat the execution of a failed test that `run --record` kept, with gdb on the kernel.",
    },
    "reproduce": {
        "reproduce": "Make a C program of the calls that a failed test made, cut down to those that "
        "matter, and try it.",
    },
    "debug": {
        "debug": "Look into a kernel that is held, recorded, or dumped: in drgn or gdb, or by one command.",
    },
    "report": {
        "report": "Print a run's record as Markdown, or write it as a page or in a format of others.",
    },
    "history": {
        "history": "Show what a test came to over the runs, or without one the runs themselves, the "
        "last one at the end.",
    },
    "compare": {
        "compare": "Run the same tests on several kernels and say what differs, and how sure that is.",
    },
    "bisect": {
        "bisect": "Find the commit that broke a test, panics, or made something slow (or fixed it), and prove it.",
    },
    "store": {
        "image": "Base images: fetch, build, import, warm, list, show, remove.",
        "kernel": "Kernels: build, import, list, show, remove.",
        "store": "The store itself: prune, verify, path.",
    },
    "guests": {
        "shell": "Run COMMAND in a target over SSH, or give a login shell.",
        "console": "Attach to a target's serial console; Ctrl-] leaves and stops the machine.",
        "hold": "Keep a guest for copy, shell --guest and ssh: until Ctrl-C, or while COMMAND runs on this host.",
        "copy": "Copy files and folders into a guest that is held, or out of it.",
    },
    "slot": {
        "slot": "Make a run for `compare --hosts` or `bisect --hosts` on another host: what ssh starts there.",
    },
    "mutate": {
        "mutate": "Make small faults in a kernel, one at a time, and see whether the tests notice.",
    },
    "explore": {
        "explore": "Hold operation A before each of its instructions in turn, make B meanwhile, and "
        "judge what comes of it.",
    },
    "bench": {
        "bench": "Measure boot, resume, calls, forks, the way to the first test, and the suite; "
        "medians, spread and ratios.",
    },
    "calibrate": {
        "calibrate": "Simulate kernels whose truth is known, and count how often what compare and "
        "bisect say of them is wrong.",
    },
    "doctor": {
        "doctor": "Check this host; --fix installs what is missing.",
    },
    "completion": {
        "completion": "Print what SHELL needs to complete commands and options.",
    },
}
#: What each command does.
SUMMARIES: Mapping[str, str] = {name: summary for brought in MODULES.values() for name, summary in brought.items()}
