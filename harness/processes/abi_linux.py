# SPDX-License-Identifier: BSD-2-Clause
"""Linux's system call interface on x86_64, for the control target and for tests of this package on the host itself."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import ClassVar

from harness.processes.abi_base import Abi, decode_bsd_status
from harness.processes.errnos import LINUX_ERRNOS
from harness.processes.vocabulary import Clock, IdType, Resource, SigFlag, SigHow, SigInfo, WaitOption, WaitStatus

_SIGNALS = """
HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ
VTALRM PROF WINCH IO PWR SYS
"""

_SIGINFO = struct.Struct("<iii4xiIi")  # signo, errno, code, padding, pid, uid, status


class LinuxAbi(Abi):
    """Linux on x86_64.  Where it has no counterpart of a DragonFly call, the call fails with ENOSYS."""

    name = "linux"
    sigset_size = 8
    siginfo_size = 128
    errnos: ClassVar[Mapping[int, str]] = LINUX_ERRNOS
    signals: ClassVar[Mapping[str, int]] = {
        f"SIG{name}": number for number, name in enumerate(_SIGNALS.split(), start=1)
    }
    numbers: ClassVar[Mapping[str, int]] = {
        "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8,
        "mmap": 9, "mprotect": 10, "munmap": 11, "sigaction": 13, "sigprocmask": 14, "ioctl": 16, "access": 21,
        "pipe": 22, "select": 23, "sched_yield": 24, "madvise": 28, "dup": 32, "dup2": 33, "pause": 34,
        "nanosleep": 35, "getitimer": 36, "alarm": 37, "setitimer": 38, "getpid": 39, "socket": 41, "connect": 42,
        "accept": 43, "sendto": 44, "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "shutdown": 48, "bind": 49,
        "listen": 50, "socketpair": 53, "setsockopt": 54, "getsockopt": 55, "clone": 56, "fork": 57, "vfork": 58,
        "execve": 59, "exit_thread": 60, "wait4": 61, "kill": 62, "uname": 63, "fcntl": 72, "flock": 73,
        "fsync": 74, "truncate": 76, "ftruncate": 77, "getdents": 78, "getcwd": 79, "chdir": 80, "fchdir": 81,
        "rename": 82, "mkdir": 83, "rmdir": 84, "link": 86, "unlink": 87, "symlink": 88, "readlink": 89,
        "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "umask": 95, "gettimeofday": 96, "getrlimit": 97,
        "getrusage": 98, "ptrace": 101, "getuid": 102, "getgid": 104, "setuid": 105, "setgid": 106, "geteuid": 107,
        "getegid": 108, "setpgid": 109, "getppid": 110, "getpgrp": 111, "setsid": 112, "setreuid": 113,
        "setregid": 114, "getgroups": 115, "setgroups": 116, "setresuid": 117, "getresuid": 118, "setresgid": 119,
        "getresgid": 120, "getpgid": 121, "getsid": 124, "sigpending": 127, "sigtimedwait": 128, "sigsuspend": 130,
        "sigaltstack": 131, "mknod": 133, "getpriority": 140, "setpriority": 141, "prctl": 157, "setrlimit": 160,
        "chroot": 161, "sync": 162, "mount": 165, "gettid": 186, "tkill": 200, "futex": 202, "clock_settime": 227,
        "clock_gettime": 228, "clock_nanosleep": 230,
        "exit": 231, "tgkill": 234, "waitid": 247, "openat": 257, "ppoll": 271,
        "pipe2": 293, "getrandom": 318, "execveat": 322,
    }  # fmt: skip
    wait_options: ClassVar[Mapping[WaitOption, int]] = {
        WaitOption.WNOHANG: 0x01,
        WaitOption.WUNTRACED: 0x02,
        WaitOption.WEXITED: 0x04,
        WaitOption.WCONTINUED: 0x08,
        WaitOption.WNOWAIT: 0x01000000,
        WaitOption.WLINUXCLONE: 0x80000000,
    }
    id_types: ClassVar[Mapping[IdType, int]] = {IdType.P_ALL: 0, IdType.P_PID: 1, IdType.P_PGID: 2}
    signal_flags: ClassVar[Mapping[SigFlag, int]] = {
        SigFlag.SA_NOCLDSTOP: 0x00000001,
        SigFlag.SA_NOCLDWAIT: 0x00000002,
        SigFlag.SA_SIGINFO: 0x00000004,
        SigFlag.SA_ONSTACK: 0x08000000,
        SigFlag.SA_RESTART: 0x10000000,
        SigFlag.SA_NODEFER: 0x40000000,
        SigFlag.SA_RESETHAND: 0x80000000,
    }
    mask_operations: ClassVar[Mapping[SigHow, int]] = {
        SigHow.SIG_BLOCK: 0,
        SigHow.SIG_UNBLOCK: 1,
        SigHow.SIG_SETMASK: 2,
    }
    resources: ClassVar[Mapping[Resource, int]] = {
        Resource.RLIMIT_CPU: 0,
        Resource.RLIMIT_FSIZE: 1,
        Resource.RLIMIT_DATA: 2,
        Resource.RLIMIT_STACK: 3,
        Resource.RLIMIT_CORE: 4,
        Resource.RLIMIT_RSS: 5,
        Resource.RLIMIT_NPROC: 6,
        Resource.RLIMIT_NOFILE: 7,
        Resource.RLIMIT_MEMLOCK: 8,
        Resource.RLIMIT_AS: 9,
    }
    clocks: ClassVar[Mapping[Clock, int]] = {Clock.CLOCK_REALTIME: 0, Clock.CLOCK_MONOTONIC: 1}
    open_flags: ClassVar[Mapping[str, int]] = {
        "O_CREAT": 0o100, "O_EXCL": 0o200, "O_NOCTTY": 0o400, "O_TRUNC": 0o1000, "O_APPEND": 0o2000,
        "O_NONBLOCK": 0o4000, "O_DIRECTORY": 0o200000, "O_NOFOLLOW": 0o400000, "O_CLOEXEC": 0o2000000,
        "O_SYNC": 0o4010000,
    }  # fmt: skip
    ioctls: ClassVar[Mapping[str, int]] = {
        "TIOCSCTTY": 0x540E, "TIOCNOTTY": 0x5422, "TIOCGPGRP": 0x540F, "TIOCSPGRP": 0x5410, "TIOCGSID": 0x5429,
        "TIOCSTI": 0x5412, "TIOCGWINSZ": 0x5413, "TIOCSWINSZ": 0x5414, "TIOCGPTN": 0x80045430,
        "TIOCSPTLCK": 0x40045431,
    }  # fmt: skip
    ptrace_requests: ClassVar[Mapping[str, int]] = {
        "PT_TRACE_ME": 0, "PT_READ_I": 1, "PT_READ_D": 2, "PT_WRITE_I": 4, "PT_WRITE_D": 5, "PT_CONTINUE": 7,
        "PT_KILL": 8, "PT_STEP": 9, "PT_ATTACH": 16, "PT_DETACH": 17,
    }  # fmt: skip

    def decode_status(self, raw: int) -> WaitStatus:
        """Decode a status word; bits/waitstatus.h: continued is 0xffff."""
        return decode_bsd_status(self, raw, continued=0xFFFF)

    def decode_siginfo(self, data: bytes) -> SigInfo:
        """Decode siginfo_t (asm-generic/siginfo.h)."""
        signo, _, code, pid, uid, status = _SIGINFO.unpack_from(data)
        return SigInfo(self.signal_name(signo), code, pid, uid, status)


LINUX = LinuxAbi()
