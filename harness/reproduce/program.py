# SPDX-License-Identifier: BSD-2-Clause
"""A story as a C program of one file: a function for each process, pipes for the order, a check at the end."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.reproduce.steps import Outcome, Step, Story, outcome_of

_WIDTH, _TAB = 72, 8
_ALARM = 10  # s after which a call that is to return has not
_NUMBER = re.compile(r"-?\d+")
_FLAGS = re.compile(r"<(.*): \d+>")
_WORD = re.compile(r"-?[\w.]+(\|\w+)*")  # a number, a name, names of flags
_SIGNAL = re.compile(r"SIG[A-Z0-9]+|\d+")
#: Which of its names a program uses needs a header; some are always needed.
_HEADERS = {
    "err.h": "err(", "errno.h": "errno", "signal.h": "SIG", "stdio.h": "", "sys/types.h": "", "sys/mman.h": "mmap(",
    "sys/procctl.h": "procctl(", "sys/ptrace.h": "ptrace(", "sys/stat.h": "mkdir(", "sys/sysctl.h": "sysctl(",
    "sys/usched.h": "usched_set(", "sys/wait.h": "wait", "time.h": "clock_gettime(", "unistd.h": "",
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """How a call is written in C, and in words; {0}, {1} are its arguments, {who} is who makes it.

    `kinds` says of each argument what it is: p a pid, s a signal, n a number or name, q a text in quotes.
    """

    c: str
    words: str
    kinds: str = ""


FORMS: Mapping[str, Form] = {
    "setpgid": Form("setpgid({0}, {1})", "{who} puts {0} into process group {1}", "pp"),
    "setsid": Form("setsid()", "{who} becomes the leader of a session"),
    "getpid": Form("getpid()", "{who} asks for its pid"),
    "getppid": Form("getppid()", "{who} asks for its parent"),
    "getpgrp": Form("getpgrp()", "{who} asks for its process group"),
    "getpgid": Form("getpgid({0})", "{who} asks for the process group of {0}", "p"),
    "getsid": Form("getsid({0})", "{who} asks for the session of {0}", "p"),
    "getuid": Form("getuid()", "{who} asks who it is"),
    "geteuid": Form("geteuid()", "{who} asks who it acts as"),
    "getegid": Form("getegid()", "{who} asks for its group"),
    "kill": Form("kill({0}, {1})", "{who} sends signal {1} to {0}", "ps"),
    "killpg": Form("killpg({0}, {1})", "{who} sends signal {1} to group {0}", "ps"),
    "wait4": Form("wait4({0}, &status, {1}, NULL)", "{who} waits for {0}", "pn"),
    "wait6": Form("wait6({0}, {1}, &status, {2}, NULL, NULL)", "{who} waits for {0} {1}", "npn"),
    "setuid": Form("setuid({0})", "{who} becomes user {0}", "n"),
    "setgid": Form("setgid({0})", "{who} becomes group {0}", "n"),
    "setreuid": Form("setreuid({0}, {1})", "{who} becomes user {0}, acting as {1}", "nn"),
    "setresuid": Form("setresuid({0}, {1}, {2})", "{who} becomes user {0}, acting as {1}", "nnn"),
    "mkdir": Form("mkdir({0}, {1})", "{who} makes directory {0}", "qn"),
    "rmdir": Form("rmdir({0})", "{who} removes directory {0}", "q"),
    "rename": Form("rename({0}, {1})", "{who} renames {0} to {1}", "qq"),
    "chdir": Form("chdir({0})", "{who} goes to directory {0}", "q"),
    "unlink": Form("unlink({0})", "{who} removes {0}", "q"),
    "ptrace": Form("ptrace({0}, {1}, (caddr_t){2}, {3})", "{who}: {0} of {1}", "npnn"),
    "procctl": Form("", ""),
    "sigaction": Form("", ""),
    "sysctl": Form("", ""),
    "_exit": Form("_exit({0})", "{who} exits", "n"),
}
_TABLE = re.compile(r"kern\.proc\.([a-z]+)(?:\.(\d+))?")
_TABLES = {
    "all": "KERN_PROC_ALL", "pid": "KERN_PROC_PID", "args": "KERN_PROC_ARGS", "cwd": "KERN_PROC_CWD",
    "pathname": "KERN_PROC_PATHNAME",
}  # fmt: skip
_PTRACE_DEFAULTS = {"PT_CONTINUE": ("1", "0"), "PT_DETACH": ("1", "0")}
_HANDLERS = {"IGNORE": ("SIG_IGN", "ignores"), "DEFAULT": ("SIG_DFL", "does by default what comes of")}


class Writer:
    """Writes the program of one story."""

    def __init__(self, story: Story, title: str, name: str, expectation: str) -> None:
        self._story = story
        self._title, self._name, self._expectation = title, name, expectation
        self._names = _names_of(story)
        self._wanted = None if story.dies else outcome_of(story.steps[-1])

    # ---- words ----

    def _called(self, pid: int) -> str:
        return self._names[pid].lower().replace("_", " ", 1).replace("_", ".")

    def _reference(self, word: str, who: int) -> tuple[str, str]:
        """Return a pid in C and in words."""
        number = int(word)
        if number == 0:
            return "0", "itself"
        if abs(number) in self._names:
            sign, group = ("-", "group of ") if number < 0 else ("", "")
            if abs(number) == who:
                return f"{sign}getpid()", f"{group}itself"
            return f"{sign}pid[{self._names[abs(number)]}]", group + self._called(abs(number))
        return word, {"-1": "anybody"}.get(word, word)

    def _call(self, step: Step) -> tuple[str, str]:
        """Return STEP in C and in words.  Raises UsageError for arguments that are not understood."""
        if step.name in _SPECIAL:
            if not all(_WORD.fullmatch(word) for word in step.arguments):
                raise UsageError(f"{step} is not understood")
            return _SPECIAL[step.name](self, step)
        form = FORMS[step.name]
        if len(step.arguments) != len(form.kinds):
            raise UsageError(f"{step} is not understood")
        c, words = [], []
        for kind, word in zip(form.kinds, step.arguments, strict=True):
            if kind == "p" and _NUMBER.fullmatch(word):
                in_c, in_words = self._reference(word, step.who)
            elif kind == "q":
                in_c = in_words = _quoted(word)
            elif _WORD.fullmatch(in_c := _constant(word)):
                in_words = in_c
            else:
                raise UsageError(f"{step} is not understood")
            c.append(in_c)
            words.append(in_words)
        said = form.words.format(*words, who=self._called(step.who))
        return form.c.format(*c), said.replace("group itself", "group of its own").replace("puts itself", "puts itself")

    def _ptrace(self, step: Step) -> tuple[str, str]:
        request, pid, *rest = step.arguments
        address, data = rest if len(rest) == 2 else _PTRACE_DEFAULTS.get(request, ("0", "0"))
        in_c, in_words = self._reference(pid, step.who)
        verb = {"PT_ATTACH": "attaches to", "PT_DETACH": "lets go of", "PT_CONTINUE": "lets run on", "PT_KILL": "kills",
                "PT_TRACE_ME": "asks to be traced:"}.get(request, request)  # fmt: skip
        return f"ptrace({request}, {in_c}, (caddr_t){address}, {data})", f"{self._called(step.who)} {verb} {in_words}"

    def _procctl(self, step: Step) -> tuple[str, str]:
        who = self._called(step.who)
        arguments = step.arguments
        if arguments == ("PROC_REAP_ACQUIRE",):
            return "procctl(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL)", f"{who} becomes a reaper"
        if arguments == ("PROC_REAP_RELEASE",):
            return "procctl(P_PID, getpid(), PROC_REAP_RELEASE, NULL)", f"{who} is no reaper any more"
        if len(arguments) == 2 and arguments[0] == "PROC_PDEATHSIG_CTL":
            return (
                f"procctl(P_PID, 0, 4 /* {arguments[0]} */, &(int){{{arguments[1]}}})",
                f"{who} asks for signal {arguments[1]} when its parent dies",
            )
        if len(arguments) == 4 and arguments[0] == "P_PID":
            data = ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(arguments[3]))
            words = {"4": "asks for a signal when its parent dies", "6": "signals its descendants as their reaper"}
            said = words.get(arguments[2], f"makes procctl() command {arguments[2]}")
            return f"procctl(P_PID, {arguments[1]}, {arguments[2]}, (unsigned char[]){{{data}}})", f"{who} {said}"
        raise UsageError(f"{step} is not understood")

    def _sigaction(self, step: Step) -> tuple[str, str]:
        signal, action = step.arguments[:2]
        if action not in _HANDLERS or not _SIGNAL.fullmatch(signal):
            raise UsageError(f"{step} is not understood")
        handler, does = _HANDLERS[action]
        return f"(signal({signal}, {handler}) == SIG_ERR ? -1 : 0)", f"{self._called(step.who)} {does} {signal}"

    def _sysctl(self, step: Step) -> tuple[str, str]:
        found = _TABLE.fullmatch(step.arguments[0]) if len(step.arguments) == 1 else None
        if found is None or found[1] not in _TABLES:
            raise UsageError(f"{step} is not understood")
        whom, words = self._reference(found[2], step.who) if found[2] else ("0", "all")
        return f"ask({_TABLES[found[1]]}, {whom})", f"{self._called(step.who)} reads kern.proc.{found[1]} of {words}"

    # ---- code ----

    def text(self) -> str:
        """Return the program."""
        functions = [line for pid in reversed(self._story.processes[1:]) for line in self._function(pid)]
        functions += self._main()
        used = "\n".join(functions)
        code = [*self._beginning(used), *self._helpers(used), *functions]
        return "\n".join([*self._comment(), *_includes("\n".join(code)), "", *code]) + "\n"

    def _helpers(self, used: str) -> Iterator[str]:
        """Yield the functions that the code USED calls."""
        yield from (line for name, lines in _HELPERS.items() if name in used for line in lines)

    def _comment(self) -> Iterator[str]:
        if self._story.dies:
            ends = (
                "A kernel that has the defect dies of it, and nothing is printed.  If the program ends, its exit status"
                " is 0: nothing happened."
            )
        else:
            ends = "Exit status: 0 the kernel is right, 1 it has the defect, 2 it could not be tried."
        yield "/*"
        yield from filled(self._title, " * ")
        yield " *"
        yield from self._more_comment()
        yield f" *\tcc {self._name} && ./a.out"
        yield " *"
        yield from filled(ends, " * ")
        if self._expectation:
            yield " *"
            yield from filled(f"What ought to be: {self._expectation}", " * ")
        yield " */"

    def _more_comment(self) -> Iterator[str]:
        """Yield what a reader has to know more."""
        return iter(())

    def _beginning(self, used: str) -> Iterator[str]:
        names = [self._names[pid] for pid in self._story.processes]
        yield from filled(f"enum {{ {', '.join([*names, 'PROCESSES'])} }};", "")
        yield ""
        if "_turn(" in used:
            yield "static int turn[PROCESSES][2]; /* pipes: whose turn it is */"
        yield "static volatile pid_t *pid;    /* of each; shared by all */"
        if not self._story.dies:
            yield "static volatile int *verdict;  /* our exit status */"

    def _function(self, pid: int) -> Iterator[str]:
        yield from ("", "static void", f"{self._names[pid].lower()}(void)", "{")
        yield from self._declarations(pid)
        yield from self._steps(pid)
        if not any(step.who == pid and step.name == "_exit" for step in self._story.steps):
            yield from ("\tfor (;;)", "\t\tpause();")
        yield "}"

    def _declarations(self, pid: int) -> Iterator[str]:
        mine = [step for step in self._story.steps if step.who == pid]
        declared = []
        if any(step.child for step in mine):
            declared.append("\tpid_t child;")
        if any(step.name in {"wait4", "wait6"} for step in mine):
            declared.append("\tint status = 0;")
        if self._wanted is not None and self._story.steps[-1].who == pid:
            declared.append("\tint result;")
        yield from declared
        if declared or pid == self._story.root:
            yield ""

    def _steps(self, pid: int) -> Iterator[str]:
        yield from self._in_turn(pid, self._story.steps)

    def _in_turn(self, pid: int, steps: Sequence[Step]) -> Iterator[str]:
        """Yield what PID has to do with STEPS, made one after the other."""
        for number, step in enumerate(steps):
            if step.who != pid:
                continue
            before = steps[number - 1].who if number else self._story.root
            if before != pid:
                yield f"\ttake_turn({self._names[pid]});"
                yield from self._after_end(steps[number - 1], step)
            following = steps[number + 1].who if number + 1 < len(steps) else 0
            if step.name == "_exit" and following:
                yield f"\tgive_turn({self._names[following]});"
                following = 0
            if number + 1 == len(steps):
                yield from self._last(step)
            else:
                yield from self._plain(step)
            if following not in {0, pid}:
                yield f"\tgive_turn({self._names[following]});"

    def _last(self, step: Step) -> Iterator[str]:
        """Yield the last of the steps that are made one after the other."""
        if self._wanted is not None:
            yield from self._check(step, self._wanted)
        else:
            yield from self._plain(step)
        if step.who != self._story.root:
            yield f"\tgive_turn({self._names[self._story.root]});"

    def _after_end(self, ended: Step, step: Step) -> Iterator[str]:
        if ended.name == "_exit":
            waits = step.name in {"wait4", "wait6"} and "WNOHANG" not in step.arguments[-1]
            if not waits:
                yield f"\tawait_end(pid[{self._names[ended.who]}]);"

    def _plain(self, step: Step) -> Iterator[str]:
        if step.child:
            name = self._names[step.child]
            call = f"{step.name}({', '.join(map(_constant, step.arguments))})"
            yield from filled(f"{self._called(step.who)} makes {self._called(step.child)}", "\t", comment=True)
            yield f"\tchild = {call};"
            yield from ("\tif (child == 0)", f"\t\t{name.lower()}();", f"\tpid[{name}] = child;")
            return
        c, words = self._call(step)
        yield from filled(words, "\t", comment=True)
        yield from statement(f"{c};")

    def _check(self, step: Step, wanted: Outcome) -> Iterator[str]:
        c, words = self._call(step)
        yield from filled(f"{words}: what comes of it is wrong", "\t", comment=True)
        if wanted.blocks:
            yield from ("\tsignal(SIGALRM, too_late);", f"\talarm({_ALARM});")
        yield from statement(f"result = {c};")
        if wanted.blocks:
            yield from ("\talarm(0);", "\tif (result >= -1)")
        else:
            condition, said = self._condition(step, wanted)
            yield from statement(f"*verdict = {condition};")
            yield "\tif (*verdict)"
            whole = f'printf("DEFECT: {step.name}() {said}\\n");'
            parts = f'printf("DEFECT: {step.name}() " "{said}\\n");'
            yield from statement(whole if len(whole) + 2 * _TAB <= _WIDTH else parts, "\t\t")
            yield "\telse"
        yield from ('\t\tprintf("right\\n");', "\tfflush(stdout);")

    def _condition(self, step: Step, wanted: Outcome) -> tuple[str, str]:
        if wanted.errno:
            return f"result == -1 && errno == {wanted.errno}", f"fails with {wanted.errno}"
        if wanted.value is None:
            return "result != -1", "succeeds"
        in_c, in_words = self._reference(str(wanted.value), step.who) if wanted.value else ("0", "0")
        if wanted.status is None or wanted.value == 0:
            return f"result == {in_c}", f"returns {in_words}"
        return f"result == {in_c} && status == {wanted.status:#x}", f"reports {in_words}, status {wanted.status:#x}"

    def _main(self) -> Iterator[str]:
        root = self._story.root
        yield from ("", "int", "main(void)", "{", "\tint each;")
        yield from self._declarations(root)
        yield from SHARED
        if len({step.who for step in self._story.steps}) > 1:
            yield from PIPES
        if not self._story.dies:
            yield "\tverdict = (volatile int *)(pid + PROCESSES);"
        yield f"\tpid[{self._names[root]}] = getpid();"
        yield ""
        yield from self._steps(root)
        if self._story.steps[-1].who != root:
            yield f"\ttake_turn({self._names[root]});"
        yield from ("", "\t/* All others are killed. */", "\tfor (each = 1; each < PROCESSES; each++)",
                    "\t\tif (pid[each] > 0)", "\t\t\tkill(pid[each], SIGKILL);")  # fmt: skip
        if self._story.dies:
            yield '\tprintf("right: nothing happened\\n");'
        yield "\treturn 0;" if self._story.dies else "\treturn *verdict;"
        yield "}"


_SPECIAL: Mapping[str, Callable[[Writer, Step], tuple[str, str]]] = {
    "ptrace": Writer._ptrace,
    "procctl": Writer._procctl,
    "sigaction": Writer._sigaction,
    "sysctl": Writer._sysctl,
}

#: Functions of the program, by what calls them.
_HELPERS = {
    "give_turn(": """
static void
give_turn(int who)
{
	write(turn[who][1], "x", 1);
}""".splitlines(),
    "take_turn(": """
static void
take_turn(int who)
{
	char byte;

	read(turn[who][0], &byte, 1);
}""".splitlines(),
    "await_end(": """
/* Wait until a process has ended: kern.proc.pid knows no zombies. */
static void
await_end(pid_t ended)
{
	int name[4] = { CTL_KERN, KERN_PROC, KERN_PROC_PID, ended };
	static char room[4096];
	size_t size;

	do
		size = sizeof(room);
	while (sysctl(name, 4, room, &size, NULL, 0) == 0 && size > 0);
}""".splitlines(),
    "ask(": """
/* Read what kern.proc tells. */
static int
ask(int what, int whom)
{
	int name[4] = { CTL_KERN, KERN_PROC, what, whom };
	static char room[65536];
	size_t size = sizeof(room);

	return sysctl(name, what == KERN_PROC_ALL ? 3 : 4, room, &size,
		NULL, 0);
}""".splitlines(),
    "too_late)": """
static void
too_late(int signal)
{
	static const char words[] = "DEFECT: it has not returned\\n";

	(void)signal;
	write(1, words, sizeof(words) - 1);
	_exit(1);
}""".splitlines(),
}
SHARED = """\
	pid = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		MAP_ANON | MAP_SHARED, -1, 0);
	if (pid == MAP_FAILED)
		err(2, "mmap");""".splitlines()
PIPES = """\
	for (each = 0; each < PROCESSES; each++)
		if (pipe(turn[each]) < 0)
			err(2, "pipe");""".splitlines()


def write_program(story: Story, title: str, name: str, expectation: str = "") -> str:
    """Return STORY as a C program to be called NAME, which begins with TITLE; EXPECTATION is what ought to be.

    Raises UsageError for a call whose arguments are not understood.
    """
    return Writer(story, title, name, expectation).text()


def is_told(step: Step, story: Story) -> bool:
    """Tell whether STEP of STORY can be written in C."""
    if step.child:
        return all(_WORD.fullmatch(_constant(word)) for word in step.arguments)
    try:
        Writer(Story(story.root, story.steps, dies=True), "", "", "")._call(step)
    except UsageError:
        return False
    return True


def _names_of(story: Story) -> dict[int, str]:
    """Return what each process is called in C: MAIN, CHILD_1, CHILD_1_2 (the second child of the first)."""
    names, count = {story.root: "MAIN"}, {story.root: 0}
    for step in story.steps:
        if step.child:
            count[step.who] = count.get(step.who, 0) + 1
            stem = "CHILD" if step.who == story.root else names[step.who]
            names[step.child] = f"{stem}_{count[step.who]}"
    return names


def _includes(code: str) -> Iterator[str]:
    yield from (f"#include <{header}>" for header, sign in _HEADERS.items() if sign in code)


def _quoted(word: str) -> str:
    inner = word.strip("'\"").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'


def _constant(word: str) -> str:
    """Return a number or a name as C has it: octal without the o, flags by their names."""
    if (flags := _FLAGS.fullmatch(word)) is not None:
        return flags[1].replace("RforkFlag.", "")
    return re.sub(r"\b0o(?=[0-7])", "0", word)


def filled(words: str, indent: str, *, comment: bool = False) -> list[str]:
    """Return WORDS in lines behind INDENT that can be mailed; as a COMMENT, or for one that has begun."""
    head = words.partition(" ")[0]
    text = words if {"(", "_", "."} & set(head) or not (comment or indent == " * ") else words[:1].upper() + words[1:]
    room = _WIDTH - len(indent.expandtabs(_TAB))
    if not comment:
        lines = textwrap.wrap(text, room, break_on_hyphens=False, subsequent_indent="" if indent else "    ")
        return [indent + line for line in lines]
    lines = textwrap.wrap(f"/* {text}.", room, break_on_hyphens=False, subsequent_indent=" * ")
    if len(lines) == 1 and len(lines[0]) + 3 <= room:
        return [f"{indent}{lines[0]} */"]
    return [*(indent + line for line in lines), f"{indent} */"]


def statement(code: str, indent: str = "\t") -> list[str]:
    """Return CODE in lines behind INDENT that can be mailed; a text in quotes stays on one line."""
    room = _WIDTH - len(indent.expandtabs(_TAB))
    held = re.sub(r'"[^"]*"', lambda text: text[0].replace(" ", "\0"), code)
    lines = textwrap.wrap(held, room, break_on_hyphens=False, break_long_words=False, subsequent_indent="    ")
    return [indent + line.replace("\0", " ") for line in lines]
