# SPDX-License-Identifier: BSD-2-Clause
"""Do statements of confidence keep their word?  Simulators that do not share the assumptions of what they judge.

A module per subject makes worlds with known truths, lets the product's decisions loose on them, and counts how often
what is said is wrong.  It imports nothing of the product but the interface of the decisions it judges: no constant, no
prior, no formula.
"""
