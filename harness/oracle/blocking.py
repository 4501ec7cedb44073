# SPDX-License-Identifier: BSD-2-Clause
"""How a system call of the model says that it has to wait."""


class WouldBlock(Exception):  # noqa: N818  (not a fault: the call is to be tried again when its process is woken)
    """The system call has to wait; RESTARTS says that a handler never ends it with EINTR."""

    def __init__(self, *, restarts: bool = False) -> None:
        super().__init__()
        self.restarts = restarts
