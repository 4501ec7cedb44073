# SPDX-License-Identifier: BSD-2-Clause
"""Running operating systems: console, SSH, identity, panic state."""
