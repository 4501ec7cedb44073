# SPDX-License-Identifier: BSD-2-Clause
"""Fetching one large file from whichever mirror has it, over networks that break off."""

from __future__ import annotations

import contextlib
import errno
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from harness.errors import HarnessError

#: Told how many bytes are there, and of how many (None: nobody knows).
Transfer = Callable[[int, int | None], None]

_AGENT = {"User-Agent": "dfly-harness"}
_KNOCK_SECONDS = 8.0
_STALL_SECONDS = 30.0
_CHUNK = 256 << 10
_ROUNDS = 3  # in a row over all mirrors without a single byte won


class OfflineError(HarnessError):
    """No mirror could be reached at all."""


@dataclass(frozen=True)
class Mirror:
    """A URL that answered: `size` in bytes and `modified` (the date of the file) as the server states them."""

    url: str
    size: int | None
    modified: datetime | None = None

    @property
    def host(self) -> str:
        """The server's name, for messages."""
        return urlsplit(self.url).netloc


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    if isinstance(cause, socket.gaierror):
        return "name not found"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate refused: {cause.verify_message}"
    if isinstance(cause, TimeoutError):
        return "no answer"
    return str(getattr(cause, "strerror", None) or cause) or type(error).__name__


def _date(stated: str | None) -> datetime | None:
    with contextlib.suppress(ValueError):
        return parsedate_to_datetime(stated).astimezone(UTC) if stated else None
    return None


def _knock(url: str) -> Mirror | str:
    request = urllib.request.Request(url, method="HEAD", headers=_AGENT)  # noqa: S310 (checked by the manifest)
    try:
        with urllib.request.urlopen(request, timeout=_KNOCK_SECONDS) as answer:  # noqa: S310
            size = answer.headers.get("Content-Length")
            return Mirror(url, int(size) if size and size.isdigit() else None, _date(answer.headers["Last-Modified"]))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{urlsplit(url).netloc}: {_reason(error)}"


def find_mirrors(urls: Sequence[str]) -> list[Mirror]:
    """Ask all URLS at once whether they have the file; return those that do, in the given order.

    Raises OfflineError, within seconds, when none answers at all; HarnessError when some answer but none has it.
    """
    with ThreadPoolExecutor(max_workers=len(urls)) as pool:
        answers = list(pool.map(_knock, urls))
    found = [answer for answer in answers if isinstance(answer, Mirror)]
    if not found:
        refusals = [answer for answer in answers if isinstance(answer, str)]
        if any(": HTTP " in refusal for refusal in refusals):
            raise HarnessError(f"no mirror has it ({'; '.join(refusals)})")
        raise OfflineError(f"no mirror can be reached ({'; '.join(refusals)})")
    return found


def fetch_text(url: str, limit: int = 1 << 20) -> str | None:
    """Return the small text file at URL, or None when it cannot be had."""
    request = urllib.request.Request(url, headers=_AGENT)  # noqa: S310
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        urllib.request.urlopen(request, timeout=_KNOCK_SECONDS) as answer,  # noqa: S310
    ):
        return str(answer.read(limit).decode(errors="replace"))
    return None


def download(mirrors: Sequence[Mirror], part: Path, *, size: int | None, transfer: Transfer) -> Mirror:
    """Complete the file PART, going on where an earlier try ended; return the mirror its last byte came from.

    A mirror that breaks off, stalls for 30 s or sends less than it announced hands over to the next, which goes on at
    that byte.  SIZE is exact, or None.  Raises HarnessError when no mirror gets any further, or the disk is full; PART
    stays, for the next try.
    """
    complaints: dict[str, str] = {}
    rounds = 0
    while rounds < _ROUNDS:
        before = _length(part)
        for mirror in mirrors:
            expected = size if size is not None else mirror.size
            try:
                complete = _pull(mirror, part, expected, transfer)
            except (OSError, http.client.HTTPException, ValueError) as error:
                _refuse_full_disk(error, part)
                complaints[mirror.host] = _reason(error)
                complete = False
            if complete:
                return mirror
            complaints.setdefault(mirror.host, "broke off")
        rounds = 0 if _length(part) > before else rounds + 1
    reasons = "; ".join(f"{host}: {reason}" for host, reason in complaints.items())
    raise HarnessError(
        f"the download broke off at {_length(part) / 1e6:.1f} MB on every mirror ({reasons}): run the same command"
        " again, it goes on from there"
    )


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _refuse_full_disk(error: Exception, part: Path) -> None:
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        raise HarnessError(
            f"the disk is full: {part.parent} took {_length(part) / 1e6:.1f} MB, which are kept; free some space and"
            " run the same command again, or set DFLY_HARNESS_HOME to a larger disk"
        ) from None


def _pull(mirror: Mirror, part: Path, expected: int | None, transfer: Transfer) -> bool:
    """Append what MIRROR sends to PART; tell whether the file is complete now."""
    have = _length(part)
    if expected is not None and have > expected:  # not the beginning of this file
        part.unlink()
        have = 0
    if expected is not None and have == expected:
        transfer(have, expected)
        return True
    headers = dict(_AGENT)
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(mirror.url, headers=headers)  # noqa: S310
    try:
        answer = urllib.request.urlopen(request, timeout=_STALL_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # There is nothing after what we have: either that is all, or it is not this file at all.
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if total and int(total[1]) == have:
            return True
        part.unlink()
        return False
    with answer:
        announced = answer.headers.get("Content-Length")
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            start = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            if not start or int(start[1]) != have:
                raise ValueError("sends another part of the file than was asked for")
        else:  # a server that knows no ranges starts over
            have = 0
        end = have + int(announced) if announced and announced.isdigit() else expected
        with part.open("ab" if have else "wb") as stream:
            _copy(answer, stream, have, end, transfer)
    return end is None or _length(part) == end


def _copy(answer: http.client.HTTPResponse, stream: BinaryIO, have: int, end: int | None, transfer: Transfer) -> None:
    transfer(have, end)
    shown = time.monotonic()
    while chunk := answer.read1(_CHUNK):
        stream.write(chunk)
        have += len(chunk)
        if time.monotonic() - shown > 0.1:
            transfer(have, end)
            shown = time.monotonic()
    transfer(have, end)
