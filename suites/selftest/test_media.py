# SPDX-License-Identifier: BSD-2-Clause
"""Fetching installation media: bad networks, bad files, full disks and two commands at once lose nothing."""

from __future__ import annotations

import bz2
import dataclasses
import errno
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, UsageError
from harness.images import download as download_module
from harness.images.download import OfflineError
from harness.images.keys import store_key
from harness.images.manifest import known_releases, load_manifest
from harness.images.media import InstallationMedium, choose_medium, fetch_medium
from harness.store import Store

FILE = "dfly-x86_64-9.9.9_REL.iso"


def an_iso(size: int = 3 << 20) -> bytes:
    """Return bytes that begin like a CD and do not repeat."""
    content = bytearray(b"".join(hashlib.sha256(str(block).encode()).digest() for block in range(size // 32)))
    content[16 * 2048 : 16 * 2048 + 6] = b"\x01CD001"
    return bytes(content)


ISO = an_iso()


@dataclass
class MirrorServer:
    """A mirror on loopback.

    `break_after` cuts an answer off after so many bytes, `breaks` times; `requests` are the paths and ranges asked for;
    `modified` is the date it states of its files.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    break_after: int | None = None
    breaks: int = 1 << 30
    ranges: bool = True
    delay: float = 0.0
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""
    modified: str = ""

    def answer(self, handler: http.server.BaseHTTPRequestHandler, *, body: bool) -> None:
        name = handler.path.rpartition("/")[2]
        wanted = handler.headers.get("Range")
        if body:
            self.requests.append((name, wanted))
        if name not in self.files:
            handler.send_error(404)
            return
        content = self.files[name]
        start = 0
        if wanted and self.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(content)}")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            handler.send_response(200)
        if self.modified:
            handler.send_header("Last-Modified", self.modified)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        if not body:
            return
        rest = content[start:]
        if self.break_after is not None and self.breaks > 0 and len(rest) > self.break_after:
            self.breaks -= 1
            rest = rest[: self.break_after]
        for at in range(0, len(rest), 65536):
            handler.wfile.write(rest[at : at + 65536])
            if self.delay:
                time.sleep(self.delay)
        handler.close_connection = True


@pytest.fixture
def mirror() -> Iterator[Callable[..., MirrorServer]]:
    """Return a maker of mirrors, all of which are gone afterwards."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def make(**settings: Any) -> MirrorServer:
        state = MirrorServer(**settings)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                state.answer(self, body=True)

            def do_HEAD(self) -> None:
                state.answer(self, body=False)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}/iso-images/"
        return state

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def a_manifest(
    folder: Path, *mirrors: MirrorServer, file: str = FILE, sha256: str | None = None, extra: str = ""
) -> Path:
    """Write a manifest of release 9.9.9 whose one file is on MIRRORS."""
    urls = ", ".join(f'"{mirror.url}"' for mirror in mirrors) or '"http://127.0.0.1:1/iso-images/"'
    text = f'release = "9.9.9"\nmirrors = [{urls}]\n{extra}[[media]]\nfile = "{file}"\n'
    if sha256 is not None:
        text += f'[[media.checksums]]\nsha256 = "{sha256}"\nstated_by = "the project"\n'
    target = folder / "mine.toml"
    target.write_text(text)
    return target


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def left_of(store: Store) -> list[str]:
    """Return what lies around in the store that no record refers to."""
    files = [*store.folder("downloads").rglob("*"), *store.folder("run").rglob("*")]
    return sorted(str(file.relative_to(store.home)) for file in files if file.is_file())


class TestManifests:
    """What comes with the harness, and what users write themselves."""

    @pytest.mark.parametrize("release", [name for name in known_releases() if name[0].isdigit()])
    def test_each_manifest_of_the_harness_is_sound(self, release: str) -> None:
        manifest = load_manifest(release)
        assert manifest.release == release
        version = tuple(int(part) for part in release.split("."))
        assert manifest.console_speed == (115200 if version >= (6, 0, 0) else 9600)
        assert ("dhcp_client" in manifest.pfi_rc_actions) == (version >= (5, 4, 0))
        assert ("hammer2" in manifest.filesystems) == (version >= (5, 0, 0))
        for medium in manifest.media:
            assert medium.file.startswith(f"dfly-x86_64-{release}_REL.iso")
            assert len(medium.urls) >= 3
            assert all(checksum.stated_by for checksum in medium.checksums)

    def test_the_releases_that_matter_are_there_newest_first(self) -> None:
        releases = known_releases()
        assert releases[0] == "6.4.2"
        assert {"6.4.2", "6.4.0", "6.2.2", "6.0.0", "5.8.1", "5.4.3", "4.8.1", "4.8.0"} <= set(releases)

    def test_the_nightly_snapshot_is_there(self) -> None:
        manifest = load_manifest("master")
        assert known_releases()[-1] == "master"
        assert manifest.rolling
        assert not manifest.edition
        assert "DEVELOPMENT" in manifest.kernel_version
        assert all("/snapshots/" in url for medium in manifest.media for url in medium.urls)

    @pytest.mark.parametrize("edition", ["2026-04-19", "2026-04-19.0312"])
    def test_an_edition_is_named_by_its_date(self, edition: str) -> None:
        manifest = load_manifest(f"master-{edition}")
        assert (manifest.release, manifest.edition) == ("master", edition)

    def test_a_numbered_release_has_no_editions(self) -> None:
        with pytest.raises(UsageError, match=r"no release '6\.4\.2-2026-04-19'"):
            load_manifest("6.4.2-2026-04-19")

    def test_a_file_with_a_checksum_is_preferred(self) -> None:
        manifest = load_manifest("6.4.2")
        assert choose_medium(manifest).checksums[0].digest == "fdab09ac37cf427b8c01de5d54bfd1d7"

    def test_an_unknown_release_is_answered_with_the_known_ones(self) -> None:
        with pytest.raises(UsageError, match=r"no release '3\.1' is known \(there: 6\.4\.2, .*FILE\.toml"):
            load_manifest("3.1")

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("release = 5", "release must be a str"),
            ("", "release is missing"),
            ('release = "../x"', "letters, digits"),
            ('release = "x"', r"at least one \[\[media\]\]"),
            ('release = "x"\ncolour = "red"', "colour means nothing"),
            ('release = "x"\n[[media]]\nfile = "a.img"', r"must be the name of an \.iso"),
            ('release = "x"\n[[media]]\nfile = "../a.iso"', "must be the name"),
            ('release = "x"\n[[media]]\nfile = "a.iso"\nurls = ["file:///etc/passwd"]', "no http or https URL"),
            ('release = "x"\ndisks = ["floppy"]\n[[media]]\nfile = "a.iso"', "disks must be a list of virtio"),
            (
                'release = "x"\n[[media]]\nfile = "a.iso"\n[[media.checksums]]\nmd5 = "12"',
                "'12' is no md5 digest",
            ),
            ('release = "x"\nrolling = "no"\n[[media]]\nfile = "a.iso"', "rolling must be true or false"),
            ("release = ", "cannot be read"),
        ],
    )
    def test_a_wrong_manifest_is_refused_with_file_and_key(self, tmp_path: Path, text: str, complaint: str) -> None:
        file = tmp_path / "mine.toml"
        file.write_text(text)
        with pytest.raises(UsageError, match=rf"manifest \S*mine\.toml.*{complaint}"):
            load_manifest(str(file))


class TestFetching:
    """One command, one or more mirrors."""

    def test_what_is_fetched_is_verified_and_in_the_store(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: ISO})
        seen: list[tuple[int, int | None]] = []
        manifest = load_manifest(str(a_manifest(tmp_path, server, sha256=digest(ISO))))
        medium = fetch_medium(manifest, store, transfer=lambda have, end: seen.append((have, end)))
        assert store.blob(medium.iso).read_bytes() == ISO
        assert medium.verified == "sha256 stated by the project"
        assert seen[0] == (0, len(ISO))
        assert seen[-1] == (len(ISO), len(ISO))
        assert left_of(store) == []

    def test_a_second_fetch_asks_nobody(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: ISO})
        manifest = load_manifest(str(a_manifest(tmp_path, server, sha256=digest(ISO))))
        first = fetch_medium(manifest, store)
        server.requests.clear()
        assert fetch_medium(manifest, store) == first
        assert server.requests == []

    def test_a_bzip2_file_is_unpacked_after_its_digest_was_checked(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        packed = bz2.compress(ISO)
        server = mirror(files={f"{FILE}.bz2": packed})
        manifest = load_manifest(str(a_manifest(tmp_path, server, file=f"{FILE}.bz2", sha256=digest(packed))))
        assert store.blob(fetch_medium(manifest, store).iso).read_bytes() == ISO
        assert left_of(store) == []

    def test_nothing_is_unpacked_whose_digest_is_wrong(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unpack(*_: object) -> None:
            raise AssertionError("unpacked before verification")

        monkeypatch.setattr(bz2, "open", unpack)
        server = mirror(files={f"{FILE}.bz2": bz2.compress(ISO)})
        manifest = load_manifest(str(a_manifest(tmp_path, server, file=f"{FILE}.bz2", sha256="0" * 64)))
        with pytest.raises(HarnessError, match="is not what it should be"):
            fetch_medium(manifest, store)

    def test_a_wrong_checksum_is_refused_and_the_file_kept_aside(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: ISO})
        manifest = load_manifest(str(a_manifest(tmp_path, server, sha256="0" * 64)))
        for number in (1, 2):
            with pytest.raises(
                HarnessError, match=rf"sha256 {digest(ISO)}, but 0{{64}} according to the project.*{FILE}\.{number}"
            ):
                fetch_medium(manifest, store)
        kept = store.home / "downloads" / "refused" / f"{FILE}.1"
        assert kept.read_bytes() == ISO
        assert store.all(InstallationMedium) == []
        assert not list(store.folder("blobs").iterdir())

    @pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
    def test_a_download_that_breaks_off_goes_on(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path, ranges: bool
    ) -> None:
        server = mirror(files={FILE: ISO}, break_after=1 << 20, breaks=2, ranges=ranges)
        manifest = load_manifest(str(a_manifest(tmp_path, server, sha256=digest(ISO))))
        assert store.blob(fetch_medium(manifest, store).iso).read_bytes() == ISO
        assert [wanted for _, wanted in server.requests] == [None, "bytes=1048576-", "bytes=2097152-"][: 2 + ranges] + (
            [] if ranges else ["bytes=1048576-"]
        )

    def test_a_download_that_never_ends_well_is_resumed_by_the_next_command(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: ISO[: 2 << 20]})
        manifest = load_manifest(str(a_manifest(tmp_path, server, sha256=digest(ISO), extra="")))
        full = load_manifest(str(a_manifest(tmp_path, server, sha256=digest(ISO))))
        object.__setattr__(full.media[0], "size", len(ISO))
        part = store.folder("downloads") / f"{FILE}.part"
        part.write_bytes(ISO[: 2 << 20])
        server.files[FILE] = ISO
        server.break_after = 0
        with pytest.raises(HarnessError, match=r"broke off at 2\.1 MB on every mirror .* goes on from there"):
            fetch_medium(manifest, store)
        server.break_after = None
        server.requests.clear()
        assert store.blob(fetch_medium(full, store).iso).read_bytes() == ISO
        assert server.requests == [(FILE, f"bytes={2 << 20}-")]

    def test_the_next_mirror_takes_over(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        bad, good = mirror(files={FILE: ISO}, break_after=1 << 20), mirror(files={FILE: ISO})
        manifest = load_manifest(str(a_manifest(tmp_path, bad, good, sha256=digest(ISO))))
        medium = fetch_medium(manifest, store)
        assert medium.source == good.url + FILE
        assert good.requests == [(FILE, "bytes=1048576-")]

    def test_a_mirror_without_the_file_is_passed_over(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        empty, good = mirror(), mirror(files={FILE: ISO})
        manifest = load_manifest(str(a_manifest(tmp_path, empty, good, sha256=digest(ISO))))
        assert fetch_medium(manifest, store).source == good.url + FILE
        with pytest.raises(HarnessError, match=rf"{FILE}: no mirror has it \(127\.0\.0\.1:\d+: HTTP 404\)"):
            fetch_medium(load_manifest(str(a_manifest(tmp_path, empty))), Store(tmp_path / "other"))

    def test_offline_is_said_at_once_with_the_file_to_bring(self, store: Store, tmp_path: Path) -> None:
        manifest = load_manifest(str(a_manifest(tmp_path)))
        started = time.monotonic()
        with pytest.raises(OfflineError, match=rf"bring {FILE} .* image fetch 9\.9\.9 --from {FILE}"):
            fetch_medium(manifest, store)
        assert time.monotonic() - started < 5

    def test_a_file_that_was_brought_is_verified_like_any_other(self, store: Store, tmp_path: Path) -> None:
        manifest = load_manifest(str(a_manifest(tmp_path, sha256=digest(ISO))))
        brought = tmp_path / FILE
        brought.write_bytes(ISO[:-1])
        with pytest.raises(HarnessError, match="is not what it should be"):
            fetch_medium(manifest, store, given=brought)
        assert brought.read_bytes() == ISO[:-1], "the user's file stays where it is"
        brought.write_bytes(ISO)
        assert store.blob(fetch_medium(manifest, store, given=brought).iso).read_bytes() == ISO
        assert brought.exists()

    def test_a_file_that_is_not_there_or_none_of_the_release(self, store: Store, tmp_path: Path) -> None:
        manifest = load_manifest(str(a_manifest(tmp_path)))
        with pytest.raises(UsageError, match="does not exist"):
            fetch_medium(manifest, store, given=tmp_path / "nowhere.iso")
        (tmp_path / "x.iso.bz2").touch()
        with pytest.raises(UsageError, match=r"none of the files of 9\.9\.9"):
            fetch_medium(manifest, store, given=tmp_path / "x.iso.bz2")

    @pytest.mark.parametrize("name", [FILE, f"{FILE}.bz2"])
    def test_what_holds_no_cd_is_kept_aside_and_not_pinned(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path, name: str
    ) -> None:
        server = mirror(files={name: b"<html>please log in</html>" * 4000})
        manifest = load_manifest(str(a_manifest(tmp_path, server, file=name)))
        with pytest.raises(HarnessError, match=r"(is no CD|is no bzip2 file).*kept as"):
            fetch_medium(manifest, store)
        assert not (store.home / "pins.json").exists()
        server.files[name] = bz2.compress(ISO) if name.endswith("bz2") else ISO
        assert store.blob(fetch_medium(manifest, store).iso).read_bytes() == ISO


class TestPinning:
    """Files whose checksum nobody has published."""

    def test_the_first_digest_is_pinned_and_said_so(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: ISO})
        said: list[str] = []
        manifest = load_manifest(str(a_manifest(tmp_path, server)))
        medium = fetch_medium(manifest, store, say=said.append)
        assert medium.verified == "sha256 pinned on first use"
        assert len(said) == 1
        assert f"pinned on first use to sha256 {digest(ISO)}" in said[0]

    def test_another_file_under_the_same_name_is_refused_later(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: ISO})
        manifest = load_manifest(str(a_manifest(tmp_path, server)))
        fetch_medium(manifest, store)
        store.remove(InstallationMedium, "9.9.9")
        server.files[FILE] = ISO + bytes(2048)
        with pytest.raises(HarnessError, match="according to the copy seen first, pinned in this store"):
            fetch_medium(manifest, store)
        server.files[FILE] = ISO
        assert fetch_medium(manifest, store).verified == "sha256 pinned when first seen in this store"

    def test_md5_txt_of_another_mirror_is_asked(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        md5 = hashlib.md5(ISO, usedforsecurity=False).hexdigest()
        one, two = mirror(files={FILE: ISO}), mirror(files={FILE: ISO})
        two.files["md5.txt"] = f"MD5 (other.iso) = {'0' * 32}\nMD5 ({FILE}) = {md5}\n".encode()
        manifest = load_manifest(str(a_manifest(tmp_path, one, two)))
        said: list[str] = []
        medium = fetch_medium(manifest, store, say=said.append)
        assert medium.verified.startswith(f"md5 as in md5.txt of {two.url.split('/')[2]}; sha256 pinned")
        two.files["md5.txt"] = f"MD5 ({FILE}) = {'0' * 32}\n".encode()
        with pytest.raises(HarnessError, match=r"according to md5\.txt of"):
            fetch_medium(manifest, Store(tmp_path / "other"))


class TestFullDisk:
    """Space is looked at before it is used, and running out of it loses nothing."""

    def test_too_little_space_is_said_before_anything_is_fetched(
        self,
        mirror: Callable[..., MirrorServer],
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        server = mirror(files={FILE: ISO})
        real = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=len(ISO)))
        with pytest.raises(HarnessError, match=rf"no room for {FILE}: .* MiB free"):
            fetch_medium(load_manifest(str(a_manifest(tmp_path, server))), store)
        assert server.requests == []

    def test_a_disk_that_gets_full_keeps_what_was_fetched(
        self,
        mirror: Callable[..., MirrorServer],
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        server = mirror(files={FILE: ISO})
        manifest = load_manifest(str(a_manifest(tmp_path, server, sha256=digest(ISO))))
        real = download_module._copy

        def full(answer: Any, stream: Any, *rest: Any) -> None:
            stream.write(answer.read(1 << 20))
            stream.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(download_module, "_copy", full)
        with pytest.raises(HarnessError, match=r"the disk is full: .* took 1\.0 MB, which are kept"):
            fetch_medium(manifest, store)
        monkeypatch.setattr(download_module, "_copy", real)
        assert store.blob(fetch_medium(manifest, store).iso).read_bytes() == ISO
        assert server.requests[-1] == (FILE, "bytes=1048576-")

    def test_a_disk_that_gets_full_while_unpacking_keeps_the_download(
        self,
        mirror: Callable[..., MirrorServer],
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        server = mirror(files={f"{FILE}.bz2": bz2.compress(ISO)})
        manifest = load_manifest(str(a_manifest(tmp_path, server, file=f"{FILE}.bz2")))
        real = bz2.open

        def full(*_: Any) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(bz2, "open", full)
        with pytest.raises(HarnessError, match=r"the disk got full .* nothing has to be fetched anew"):
            fetch_medium(manifest, store)
        monkeypatch.setattr(bz2, "open", real)
        server.requests.clear()
        assert store.blob(fetch_medium(manifest, store).iso).read_bytes() == ISO
        assert [wanted for name, wanted in server.requests if name.endswith("bz2")] in ([], [None])


FETCH = (
    "import sys\nfrom pathlib import Path\nfrom harness.store import Store\n"
    "from harness.images.manifest import load_manifest\nfrom harness.images.media import fetch_medium\n"
    "print(fetch_medium(load_manifest(sys.argv[1]), Store(Path(sys.argv[2]))).iso)\n"
)


def start_fetch(manifest: Path, store: Store) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", FETCH, str(manifest), str(store.home)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_fetches_of_the_same_image_fetch_it_once(
    mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
) -> None:
    server = mirror(files={FILE: ISO}, delay=0.02)
    manifest = a_manifest(tmp_path, server, sha256=digest(ISO))
    both = [start_fetch(manifest, store) for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in both]
    assert [output.strip() for output, _ in answers] == [digest(ISO)] * 2, answers
    assert server.requests == [(FILE, None)]


def test_a_fetch_that_was_killed_is_resumed(mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path) -> None:
    server = mirror(files={FILE: ISO}, delay=0.05)
    manifest = a_manifest(tmp_path, server, sha256=digest(ISO))
    part = store.folder("downloads") / f"{FILE}.part"
    with start_fetch(manifest, store) as process:
        end = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size > 1 << 19):
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert store.all(InstallationMedium) == []
    have = part.stat().st_size
    server.delay = 0
    assert fetch_medium(load_manifest(str(manifest)), store).iso == digest(ISO)
    assert server.requests[-1] == (FILE, f"bytes={have}-")


def test_prune_leaves_a_running_download_alone_and_removes_a_dead_one(
    mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
) -> None:
    part = store.folder("downloads") / f"{FILE}.part"
    part.write_bytes(ISO)
    with store.downloading():
        store.prune(thorough=True)
    assert part.exists()
    assert store.prune() == 0
    assert part.exists(), "a half download is worth keeping until somebody asks for a thorough prune"
    assert store.prune(thorough=True) == len(ISO)
    assert not part.exists()


def test_prune_keeps_the_media_that_were_fetched(
    mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
) -> None:
    medium = fetch_medium(load_manifest(str(a_manifest(tmp_path, mirror(files={FILE: ISO})))), store)
    store.prune(thorough=True)
    assert store.blob(medium.iso).exists()


def test_the_key_of_a_store_is_made_once_and_private(store: Store) -> None:
    key = store_key(store)
    assert store_key(store) == key
    assert oct(key.file.stat().st_mode & 0o777) == "0o600"
    assert oct(key.file.parent.stat().st_mode & 0o777) == "0o700"
    assert re.fullmatch(r"ssh-ed25519 [A-Za-z0-9+/=]+ dfly-harness", key.public)
    assert store_key(Store(store.home.parent / "other")).public != key.public
    import paramiko

    loaded = paramiko.PKey.from_path(key.file)
    assert key.public.startswith(f"{loaded.get_name()} {loaded.get_base64()} ")


def test_a_name_that_does_not_resolve_is_offline_too(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(OfflineError, match="name not found"):
        fetch_medium(load_manifest("6.4.2"), store)


MONDAY, TUESDAY = "Mon, 20 Apr 2026 03:12:00 GMT", "Tue, 21 Apr 2026 03:12:00 GMT"


def made_at(stamp: str, filling: int = 0) -> bytes:
    """Return a CD that says it was made at STAMP (14 digits); FILLING makes another one of the same date."""
    iso = bytearray(ISO)
    iso[16 * 2048 + 813 : 16 * 2048 + 827] = stamp.encode()
    iso[-1] = filling
    return bytes(iso)


def a_rolling_manifest(folder: Path, *mirrors: MirrorServer) -> str:
    return str(a_manifest(folder, *mirrors, extra="rolling = true\n"))


class TestRollingReleases:
    """A file that is replaced by a newer one under the same name."""

    def test_each_edition_is_kept_under_its_own_date(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: made_at("20260420031200")}, modified=MONDAY)
        manifest = load_manifest(a_rolling_manifest(tmp_path, server))
        first = fetch_medium(manifest, store)
        server.files[FILE], server.modified = made_at("20260421031200"), TUESDAY
        second = fetch_medium(manifest, store)
        assert [first.name, second.name] == ["9.9.9-2026-04-20", "9.9.9-2026-04-21"]
        assert store.blob(first.iso).read_bytes() == made_at("20260420031200")
        assert store.blob(second.iso).read_bytes() == made_at("20260421031200")
        assert left_of(store) == []

    def test_the_newest_is_not_fetched_twice(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: made_at("20260420031200")}, modified=MONDAY)
        manifest = load_manifest(a_rolling_manifest(tmp_path, server))
        first = fetch_medium(manifest, store)
        server.requests.clear()
        assert fetch_medium(manifest, store) == first
        assert server.requests == []

    def test_a_mirror_that_lags_behind_is_not_asked_for_the_file(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        old = mirror(files={FILE: made_at("20260420031200")}, modified=MONDAY)
        new = mirror(files={FILE: made_at("20260421031200")}, modified=TUESDAY)
        assert fetch_medium(load_manifest(a_rolling_manifest(tmp_path, old, new)), store).name == "9.9.9-2026-04-21"
        assert old.requests == [] or {name for name, _ in old.requests} == {"md5.txt"}

    def test_what_is_there_of_an_older_edition_is_not_gone_on_with(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: made_at("20260420031200")}, modified=MONDAY, break_after=1 << 20, ranges=False)
        manifest = load_manifest(a_rolling_manifest(tmp_path, server))
        with pytest.raises(HarnessError, match="broke off"):
            fetch_medium(manifest, store)
        server.files[FILE], server.modified = made_at("20260421031200"), TUESDAY
        server.break_after, server.ranges = None, True
        assert store.blob(fetch_medium(manifest, store).iso).read_bytes() == made_at("20260421031200")

    def test_an_edition_that_has_changed_is_refused(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: made_at("20260420031200")}, modified=MONDAY)
        manifest = load_manifest(a_rolling_manifest(tmp_path, server))
        first = fetch_medium(manifest, store)
        server.files[FILE], server.modified = made_at("20260420031200", filling=1), TUESDAY
        with pytest.raises(HarnessError, match="according to the copy seen first"):
            fetch_medium(manifest, store)
        assert [medium.name for medium in store.all(InstallationMedium)] == [first.name]

    def test_two_editions_of_one_day_are_told_apart(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: made_at("20260420031200")}, modified=MONDAY)
        manifest = load_manifest(a_rolling_manifest(tmp_path, server))
        fetch_medium(manifest, store)
        server.files[FILE], server.modified = made_at("20260420150500"), TUESDAY
        assert fetch_medium(manifest, store).name == "9.9.9-2026-04-20.1505"

    def test_an_older_edition_is_had_from_the_store_alone(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: made_at("20260420031200")}, modified=MONDAY)
        manifest = load_manifest(a_rolling_manifest(tmp_path, server))
        first = fetch_medium(manifest, store)
        assert fetch_medium(dataclasses.replace(manifest, edition="2026-04-20"), store) == first
        with pytest.raises(UsageError, match=r"mirrors keep the newest only.*in the store: 9\.9\.9-2026-04-20"):
            fetch_medium(dataclasses.replace(manifest, edition="2026-04-19"), store)

    def test_without_a_network_the_editions_in_the_store_are_named(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        server = mirror(files={FILE: made_at("20260420031200")}, modified=MONDAY)
        fetch_medium(load_manifest(a_rolling_manifest(tmp_path, server)), store)
        with pytest.raises(OfflineError, match=r"in the store: 9\.9\.9-2026-04-20"):
            fetch_medium(load_manifest(a_rolling_manifest(tmp_path)), store)


class TestMd5Only:
    """MD5 keeps accidents out, not people."""

    def test_the_first_copy_is_pinned_and_the_next_held_to_it(
        self, mirror: Callable[..., MirrorServer], store: Store, tmp_path: Path
    ) -> None:
        said: list[str] = []
        server = mirror(files={FILE: ISO})
        file = a_manifest(tmp_path, server)
        md5 = hashlib.md5(ISO, usedforsecurity=False).hexdigest()
        file.write_text(file.read_text() + f'[[media.checksums]]\nmd5 = "{md5}"\nstated_by = "a list"\n')
        medium = fetch_medium(load_manifest(str(file)), store, say=said.append)
        assert "md5 stated by a list" in medium.verified
        assert "pinned on first use" in medium.verified
        assert "no published checksum but MD5" in said[0]
        pins = json.loads((store.home / "pins.json").read_text())
        assert pins[FILE]["sha256"] == digest(ISO)
        pins[FILE]["sha256"] = "0" * 64  # as if another file of the same MD5 had been seen first
        (store.home / "pins.json").write_text(json.dumps(pins))
        store.remove(InstallationMedium, medium.name)
        with pytest.raises(HarnessError, match="according to the copy seen first"):
            fetch_medium(load_manifest(str(file)), store)
