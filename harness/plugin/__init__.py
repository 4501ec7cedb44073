# SPDX-License-Identifier: BSD-2-Clause
"""The pytest plugin: options, the target, selection, evidence, and the record of a run."""
