# SPDX-License-Identifier: BSD-2-Clause
"""Error numbers by name, per ABI: a guest's EAGAIN (35 on DragonFly) is the host's EAGAIN (11 on Linux)."""

from __future__ import annotations

import errno
from collections.abc import Mapping


def _numbered(names: str, first: int) -> dict[int, str]:
    return dict(enumerate(names.split(), start=first))


# sys/errno.h of DragonFly; the numbers have not changed since 4.4BSD, new ones were only added at the end.
DRAGONFLY_ERRNOS: Mapping[int, str] = _numbered(
    """
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EDEADLK ENOMEM EACCES EFAULT ENOTBLK
    EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE
    EROFS EMLINK EPIPE EDOM ERANGE EAGAIN EINPROGRESS EALREADY ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE
    ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE
    EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN
    ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED ELOOP ENAMETOOLONG EHOSTDOWN EHOSTUNREACH ENOTEMPTY
    EPROCLIM EUSERS EDQUOT ESTALE EREMOTE EBADRPC ERPCMISMATCH EPROGUNAVAIL EPROGMISMATCH EPROCUNAVAIL
    ENOLCK ENOSYS EFTYPE EAUTH ENEEDAUTH EIDRM ENOMSG EOVERFLOW ECANCELED EILSEQ ENOATTR EDOOFUS EBADMSG
    EMULTIHOP ENOLINK EPROTO ENOMEDIUM
    """,
    first=1,
)

# asm-generic/errno-base.h and asm-generic/errno.h, which x86_64 uses unchanged.
LINUX_ERRNOS: Mapping[int, str] = {
    **_numbered(
        """
        EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK
        EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE
        EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP
        """,
        first=1,
    ),
    42: "ENOMSG",
    43: "EIDRM",
    61: "ENODATA",
    71: "EPROTO",
    74: "EBADMSG",
    75: "EOVERFLOW",
    84: "EILSEQ",
    **_numbered(
        """
        ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP
        EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED
        ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN
        EHOSTUNREACH EALREADY EINPROGRESS ESTALE
        """,
        first=88,
    ),
    122: "EDQUOT",
    123: "ENOMEDIUM",
    125: "ECANCELED",
}


def host_errno(name: str) -> int:
    """Return the host's number for an errno name; -1 if the host has no such name (EDOOFUS on Linux)."""
    value = getattr(errno, name, -1)
    return value if isinstance(value, int) else -1


def errno_name(error: int | str) -> str:
    """Return the name of a host errno number ("EPERM"); a name is returned as it is."""
    if isinstance(error, str):
        return error
    return errno.errorcode.get(error, f"errno {error}")
