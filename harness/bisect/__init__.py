# SPDX-License-Identifier: BSD-2-Clause
"""Which commit broke it: what is known after some experiments, which experiment comes next, and who makes it.

`history`, `rates` and `decision` are pure: no git, no machine, no clock.  `repository` reads commits, `laboratory`
tests one kernel, `state` remembers, and `search` lets them work together until the culprit is found and proved.
"""
