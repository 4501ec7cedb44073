# SPDX-License-Identifier: BSD-2-Clause
"""The console side of an install: a few words for the boot loader, then listening.

The live CD's boot loader talks on video and serial port at once and loses characters, above all the first ones after
its prompt; so nothing is typed before a prompt is seen, each character is typed when the one before has come back, and
a line that does not look right is discarded and typed again.  Should it boot without our words the kernel would talk
to the video only: then the machine has to be started again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from harness.errors import DeadlineError, GuestLostError, HarnessError
from harness.guests.console import Console
from harness.install.stages import Stages

_MENU = r"Escape to loader prompt"
_COUNTDOWN = r"Booting in \d+ second"
_PROMPT = r"OK $"
_PROMPT_AFTER_MENU = r"OK 9*$"  # a key pressed again because the first was answered late
_UNKNOWN = r"(?:unknown command|parse error)"
# Up to the line's end: what says why comes last.
_NO_KERNEL = r"(?:can't (?:load|find) [^\r\n]*|no kernel loaded[^\r\n]*|don't know how to load[^\r\n]*)[\r\n]"
_COPYRIGHT = r"The DragonFly Project\."
_PANIC = r"(?:^|\n)(?:panic: [^\r\n]*|Fatal trap \d+: [^\r\n]*)[\r\n]"
_NO_ROOT = r"Root mount failed: \d+[\r\n]|mountroot> "
_SINGLE_USER = r"Enter full pathname of shell or RETURN for /bin/sh: "
_LOGIN = r"login: $"
_OURS = r"dfly-harness install: ([^\r\n]*)\r?\n"
_HALTED = r"The operating system has halted\."

_MENU_TRIES = 20
_LINE_TRIES = 8
_CHARACTER_TRIES = 6
_DISCARD = "\x15"  # Ctrl-U: gets.c forgets the line and begins a new one


class FalseStartError(HarnessError):
    """The live system did not come up as it mostly does; starting the machine again helps.

    The loader may boot before it could be told to use the serial console; and a live system of 2020 was seen to refuse
    our CD (`mount_cd9660: /dev/acd1: Invalid argument`) at some starts and to take it at others, on the same machine.
    """


@dataclass(frozen=True)
class Deadlines:
    """How long to wait for what, in seconds.

    Under TCG everything takes about ten times as long as with KVM, and hosts are shared.  `key` is the time until a
    menu key has had an effect, `echo` until a character comes back; after `quiet` nothing more is taken to come.
    """

    key: float = 2.0
    echo: float = 1.5
    quiet: float = 0.5
    menu: float = 180.0
    prompt: float = 60.0
    kernel: float = 300.0
    root: float = 600.0
    script: float = 1200.0
    partition: float = 600.0
    format: float = 900.0
    copy: float = 7200.0
    configure: float = 900.0
    unmount: float = 900.0
    power_off: float = 300.0

    def of_step(self, step: str) -> float:
        """Return the deadline of a step that the install script announces."""
        return float(getattr(self, step, self.script))


class InstallDialogue:
    """Leads one machine from power-on to the end of our script, over CONSOLE; WATCH raises when the machine died."""

    def __init__(
        self,
        console: Console,
        watch: Callable[[], None],
        stages: Stages,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._console = console
        self._watch = watch
        self._stages = stages
        self._deadlines = Deadlines() if deadlines is None else deadlines

    def run(self) -> None:
        """Do it all; raises StageError, with the stage's name, caused by FalseStartError where another try helps."""
        with self._stages.stage("boot loader", self._console):
            self.reach_prompt()
        with self._stages.stage("serial console", self._console):
            self.command("set console=comconsole")
        with self._stages.stage("root on the CD", self._console):
            # The CD's fstab named its root until 2025-01; loader.conf's kernel_options=-C, which says the same as this
            # variable (sys/boot.h), counts for the menu's items only (dloader/cmds.c: command_loadall()).
            self.command("set boot_cdrom=YES")
        with self._stages.stage("live kernel", self._console):
            self.boot()
        with self._stages.stage("live system", self._console):
            self.await_script()
        self.follow_script()
        with self._stages.stage("power off", self._console):
            self.await_power_off()

    def _expect(self, patterns: list[str], awaited: str, deadline: float) -> int:
        return self._console.expect(patterns, awaited=awaited, deadline=deadline, watch=self._watch)

    # the boot loader

    def reach_prompt(self) -> None:
        """Leave the menu for the loader's prompt."""
        self._expect([_MENU, _COUNTDOWN], "the boot loader's menu", self._deadlines.menu)
        for _ in range(_MENU_TRIES):
            # A menu item acts at once; a lost key only costs time, as the countdown goes on.
            self._console.send("9")
            try:
                answer = self._expect(
                    [_PROMPT_AFTER_MENU, _COPYRIGHT, _NO_KERNEL], "the boot loader's prompt", self._deadlines.key
                )
            except DeadlineError:
                continue
            if answer == 0:
                return
            break
        raise FalseStartError("the boot loader did not stop at its prompt")

    def command(self, line: str) -> None:
        """Have the loader run LINE, which leads back to its prompt; typed again when it was not understood."""
        for _ in range(_LINE_TRIES):
            self._type(line)
            answer = self._expect([_UNKNOWN, _PROMPT], f"the answer to `{line}`", self._deadlines.prompt)
            if answer == 1:
                return
            self._expect([_PROMPT], "the boot loader's prompt", self._deadlines.prompt)
        raise HarnessError(f"the boot loader does not understand `{line}`")

    def boot(self) -> None:
        """Have the loader boot; return when the live kernel speaks on the serial port."""
        for _ in range(_LINE_TRIES):
            self._type("boot")
            answer = self._expect(
                [_UNKNOWN, _NO_KERNEL, _COPYRIGHT, _PANIC],
                "the live kernel's first words",
                self._deadlines.kernel,
            )
            if answer == 2:
                return
            if answer != 0:
                self._give_up("the boot loader could not start the kernel")
            self._expect([_PROMPT], "the boot loader's prompt", self._deadlines.prompt)
        raise HarnessError("the boot loader does not understand `boot`")

    def _type(self, line: str) -> None:
        """Type LINE at the prompt and press Enter, once the loader has shown all of it."""
        for _ in range(_LINE_TRIES):
            # Whatever is on the line goes; and if the first character after the prompt is lost, this is the one.
            before = self._console.position
            self._console.send(_DISCARD)
            self._console.await_more(before, self._deadlines.echo)
            start = self._settled()
            if all(self._character(line, length, start) for length in range(1, len(line) + 1)) and self._enter():
                return
        raise HarnessError(f"the boot loader does not echo what is typed: `{line}` became {self._shown(start)!r}")

    def _enter(self) -> bool:
        """Press Enter; tell whether the loader took it."""
        for _ in range(_CHARACTER_TRIES):
            start = known = self._console.position
            self._console.send("\r")
            while self._console.await_more(known, self._deadlines.echo) and not self._console.closed:
                if "\n" in self._console.text(start):
                    return True
                known = self._console.position
        return False

    def _character(self, line: str, length: int, start: int) -> bool:
        """Type one more character; tell whether the first LENGTH of LINE are on the screen now."""
        wanted = line[:length]
        for attempt in range(_CHARACTER_TRIES):
            self._console.send(line[length - 1])
            while True:
                known = self._console.position
                shown = self._shown(start)
                if shown == wanted:
                    # Late is not lost: what was typed twice may come back twice, and Enter must not get in between.
                    if attempt and self._console.await_more(known, self._deadlines.echo):
                        continue
                    return True
                if not wanted.startswith(shown):
                    return False  # something else came back: a doubled or a garbled character
                self._watch()
                if not self._console.await_more(known, self._deadlines.echo):
                    break  # it was lost
        return False

    def _shown(self, start: int) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]", "", self._console.text(start))

    def _settled(self) -> int:
        """Wait until nothing more comes; return the position."""
        position = self._console.position
        while self._console.await_more(position, self._deadlines.quiet) and not self._console.closed:
            position = self._console.position
        return position

    # the live system

    def await_script(self) -> None:
        """Follow the kernel to its root file system and the system to our script."""
        patterns = [_OURS, _NO_ROOT, _PANIC, _SINGLE_USER, _LOGIN]
        answer = self._expect(patterns, "the live system to run our CD's script", self._deadlines.script)
        if answer == 0:
            return
        if answer == 4:
            raise FalseStartError(
                "the live system came up without running our script: its rc.d/pfi did not find our CD"
            )
        self._give_up(
            {
                1: "the live kernel found no root file system on the CD",
                2: "the live kernel panicked",
                3: "the live system did not come up and asks for a single user shell",
            }[answer]
        )

    def follow_script(self) -> None:
        """Follow the script's own steps to `complete`."""
        step = "begin"
        while True:
            with self._stages.stage(f"install: {step}", self._console):
                patterns = [_OURS, _PANIC, _NO_ROOT, _LOGIN, _HALTED]
                awaited = "the install script's next step"
                answer = self._expect(patterns, awaited, self._deadlines.of_step(step))
                if answer != 0:
                    reasons = {
                        1: "the live kernel panicked",
                        2: "the machine restarted in mid-install",
                        3: "the install script ended without a word",
                        4: "the live system was halted in mid-install",
                    }
                    self._give_up(reasons[answer])
                said = self._console.matched[1].strip()
                if said == "complete":
                    return
                if said.startswith("failed at "):
                    raise HarnessError(said)
                step = said.removeprefix("stage ")

    def await_power_off(self) -> None:
        """Wait until QEMU has ended."""
        try:
            while self._expect([_HALTED, _PANIC], "the machine to switch itself off", self._deadlines.power_off) == 0:
                self._console.send("\r")  # it could not, and waits for a key to restart, which ends QEMU too
        except GuestLostError:
            return
        self._give_up("the live kernel panicked while it was shutting down")

    def _give_up(self, reason: str) -> NoReturn:
        said = self._console.matched[0].strip()
        self._settled()  # the rest of the line, and what explains it
        text = self._console.text()
        start = max(0, text.rfind(said))
        line = text[start:].partition("\n")[0].strip()
        raise HarnessError(f"{reason} ({line})" if line else reason)
