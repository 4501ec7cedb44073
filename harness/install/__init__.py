# SPDX-License-Identifier: BSD-2-Clause
"""Making base images: unattended installs and foreign disks, over console and SSH."""
