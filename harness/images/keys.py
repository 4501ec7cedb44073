# SPDX-License-Identifier: BSD-2-Clause
"""The store's own SSH key: made once, never leaves it, lets the harness into the images it builds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.errors import HarnessError
from harness.files import write_whole
from harness.store import Store

_COMMENT = "dfly-harness"


@dataclass(frozen=True)
class StoreKey:
    """A private key file, readable by its owner only, and its public half as sshd wants it."""

    file: Path
    public: str


def store_key(store: Store) -> StoreKey:
    """Return the key of STORE, made on first use; raises HarnessError when the one there is no key."""
    folder = store.folder("keys")
    folder.chmod(0o700)
    file = folder / "id_ed25519"
    with store.lock("keys"):
        if not file.exists():
            private = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
            # Nobody else may read it, not even while it is being written.
            write_whole(file, private, mode=0o600)
    try:
        key = serialization.load_ssh_private_key(file.read_bytes(), None)
    except ValueError:
        raise HarnessError(
            f"{file} is no SSH key: remove it to have another made (images built with it keep theirs)"
        ) from None
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return StoreKey(file, f"{public.decode()} {_COMMENT}")
