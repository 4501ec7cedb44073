# SPDX-License-Identifier: BSD-2-Clause
"""DragonFly's system call interface (sys/kern/syscalls.master, sys/sys/*.h).

One table serves all versions: what a kernel does not know fails with ENOSYS.  Two numbers have been used again, 455
and 456, eleven years after the calls that had them before went (they are syscap_get and syscap_set since October 2023).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import ClassVar

from harness.processes.abi_base import Abi, decode_bsd_status
from harness.processes.errnos import DRAGONFLY_ERRNOS
from harness.processes.vocabulary import Clock, IdType, Resource, SigFlag, SigHow, SigInfo, WaitOption, WaitStatus

_SIGNALS = """
HUP INT QUIT ILL TRAP ABRT EMT FPE KILL BUS SEGV SYS PIPE ALRM TERM URG STOP TSTP CONT CHLD TTIN TTOU IO XCPU XFSZ
VTALRM PROF WINCH INFO USR1 USR2 THR CKPT CKPTEXIT
"""

_SIGINFO = struct.Struct("<iiiiIi")  # signo, errno, code, pid, uid, status


class DragonFlyAbi(Abi):
    """DragonFly on x86_64."""

    name = "dragonfly"
    sigset_size = 16
    siginfo_size = 80
    errnos: ClassVar[Mapping[int, str]] = DRAGONFLY_ERRNOS
    signals: ClassVar[Mapping[str, int]] = {
        f"SIG{name}": number for number, name in enumerate(_SIGNALS.split(), start=1)
    }
    numbers: ClassVar[Mapping[str, int]] = {
        "exit": 1, "fork": 2, "read": 3, "write": 4, "open": 5, "close": 6, "wait4": 7, "link": 9, "unlink": 10,
        "chdir": 12, "fchdir": 13, "mknod": 14, "chmod": 15, "chown": 16, "mount": 21, "unmount": 22, "getpid": 20,
        "setuid": 23, "getuid": 24, "geteuid": 25, "ptrace": 26, "recvmsg": 27, "sendmsg": 28, "recvfrom": 29,
        "accept": 30, "access": 33, "sync": 36, "kill": 37, "getppid": 39, "dup": 41, "pipe": 42, "getegid": 43,
        "profil": 44, "ktrace": 45, "getgid": 47, "getlogin": 49, "setlogin": 50, "acct": 51, "sigaltstack": 53,
        "ioctl": 54, "reboot": 55, "revoke": 56, "symlink": 57, "readlink": 58, "execve": 59, "umask": 60, "chroot": 61,
        "msync": 65, "vfork": 66, "munmap": 73, "mprotect": 74, "madvise": 75, "mincore": 78, "getgroups": 79,
        "setgroups": 80, "getpgrp": 81, "setpgid": 82, "setitimer": 83, "getitimer": 86, "dup2": 90, "fcntl": 92,
        "select": 93, "fsync": 95, "setpriority": 96, "socket": 97, "connect": 98, "getpriority": 100, "bind": 104,
        "setsockopt": 105, "listen": 106, "gettimeofday": 116, "getrusage": 117, "getsockopt": 118, "readv": 120,
        "writev": 121, "fchown": 123, "fchmod": 124, "setreuid": 126, "setregid": 127, "rename": 128, "flock": 131,
        "mkfifo": 132, "sendto": 133, "shutdown": 134, "socketpair": 135, "mkdir": 136, "rmdir": 137, "setsid": 147,
        "rtprio": 166, "setgid": 181, "setegid": 182, "seteuid": 183, "getrlimit": 194, "setrlimit": 195,
        "mmap": 197, "lseek": 199, "truncate": 200, "ftruncate": 201, "__sysctl": 202, "mlock": 203, "munlock": 204,
        "getpgid": 207, "poll": 209, "clock_gettime": 232, "clock_settime": 233, "nanosleep": 240,
        "clock_nanosleep": 241, "minherit": 250,
        "rfork": 251, "issetugid": 253, "getsid": 310, "setresuid": 311, "setresgid": 312, "yield": 321,
        "mlockall": 324, "munlockall": 325, "__getcwd": 326, "utrace": 335, "jail": 338, "sigprocmask": 340,
        "sigsuspend": 341, "sigaction": 342, "sigpending": 343, "sigtimedwait": 345, "sigwaitinfo": 346,
        "getresuid": 360, "getresgid": 361, "kqueue": 362, "kevent": 363, "kenv": 390,
        "syscap_get": 455, "syscap_set": 456, "sys_checkpoint": 467,
        "umtx_sleep": 469, "umtx_wakeup": 470, "jail_attach": 471, "closefrom": 474, "stat": 475, "fstat": 476,
        "lstat": 477, "getdents": 480, "usched_set": 481, "extexit": 494, "lwp_create": 495, "lwp_gettid": 496,
        "lwp_kill": 497, "lwp_rtprio": 498, "pselect": 499, "openat": 504, "chroot_kernel": 522, "procctl": 536,
        "pipe2": 538,
        "lwp_setname": 542, "ppoll": 543, "lwp_setaffinity": 544, "lwp_getaffinity": 545, "lwp_create2": 546,
        "getcpuclockid": 547, "wait6": 548, "lwp_getname": 549, "getrandom": 550, "__realpath": 551,
        "fexecve": 552, "posix_fallocate": 553, "fdatasync": 554, "futimesat": 555,
    }  # fmt: skip
    wait_options: ClassVar[Mapping[WaitOption, int]] = {
        WaitOption.WNOHANG: 0x01,
        WaitOption.WUNTRACED: 0x02,
        WaitOption.WCONTINUED: 0x04,
        # Since 5.4; an older kernel refuses them with EINVAL.
        WaitOption.WNOWAIT: 0x08,
        WaitOption.WEXITED: 0x10,
        WaitOption.WTRAPPED: 0x20,
        WaitOption.WLINUXCLONE: 0x80000000,
    }
    id_types: ClassVar[Mapping[IdType, int]] = {idtype: number for number, idtype in enumerate(IdType)}
    signal_flags: ClassVar[Mapping[SigFlag, int]] = {
        SigFlag.SA_ONSTACK: 0x01,
        SigFlag.SA_RESTART: 0x02,
        SigFlag.SA_RESETHAND: 0x04,
        SigFlag.SA_NOCLDSTOP: 0x08,
        SigFlag.SA_NODEFER: 0x10,
        SigFlag.SA_NOCLDWAIT: 0x20,
        SigFlag.SA_SIGINFO: 0x40,
    }
    mask_operations: ClassVar[Mapping[SigHow, int]] = {
        SigHow.SIG_BLOCK: 1,
        SigHow.SIG_UNBLOCK: 2,
        SigHow.SIG_SETMASK: 3,
    }
    resources: ClassVar[Mapping[Resource, int]] = {
        Resource.RLIMIT_CPU: 0,
        Resource.RLIMIT_FSIZE: 1,
        Resource.RLIMIT_DATA: 2,
        Resource.RLIMIT_STACK: 3,
        Resource.RLIMIT_CORE: 4,
        Resource.RLIMIT_RSS: 5,
        Resource.RLIMIT_MEMLOCK: 6,
        Resource.RLIMIT_NPROC: 7,
        Resource.RLIMIT_NOFILE: 8,
        Resource.RLIMIT_AS: 10,
    }
    clocks: ClassVar[Mapping[Clock, int]] = {Clock.CLOCK_REALTIME: 0, Clock.CLOCK_MONOTONIC: 4}
    open_flags: ClassVar[Mapping[str, int]] = {
        "O_NONBLOCK": 0x0004, "O_APPEND": 0x0008, "O_SYNC": 0x0080, "O_NOFOLLOW": 0x0100, "O_CREAT": 0x0200,
        "O_TRUNC": 0x0400, "O_EXCL": 0x0800, "O_NOCTTY": 0x8000, "O_CLOEXEC": 0x20000, "O_DIRECTORY": 0x08000000,
        "O_CLOFORK": 0x01000000,
    }  # fmt: skip
    ioctls: ClassVar[Mapping[str, int]] = {
        "TIOCSCTTY": 0x20007461, "TIOCNOTTY": 0x20007471, "TIOCGPGRP": 0x40047477, "TIOCSPGRP": 0x80047476,
        "TIOCGSID": 0x40047463, "TIOCSTI": 0x80017472, "TIOCGWINSZ": 0x40087468, "TIOCSWINSZ": 0x80087467,
        "FIODNAME": 0x80106678,
    }  # fmt: skip
    ptrace_requests: ClassVar[Mapping[str, int]] = {
        "PT_TRACE_ME": 0, "PT_READ_I": 1, "PT_READ_D": 2, "PT_WRITE_I": 4, "PT_WRITE_D": 5, "PT_CONTINUE": 7,
        "PT_KILL": 8, "PT_STEP": 9, "PT_ATTACH": 10, "PT_DETACH": 11, "PT_IO": 12,
    }  # fmt: skip

    def decode_status(self, raw: int) -> WaitStatus:
        """Decode a status word; sys/wait.h: WIFCONTINUED(x) is x == SIGCONT."""
        return decode_bsd_status(self, raw, continued=19)

    def decode_siginfo(self, data: bytes) -> SigInfo:
        """Decode siginfo_t (sys/signal.h)."""
        signo, _, code, pid, uid, status = _SIGINFO.unpack_from(data)
        return SigInfo(self.signal_name(signo), code, pid, uid, status)


DRAGONFLY = DragonFlyAbi()
