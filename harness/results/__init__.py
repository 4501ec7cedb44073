# SPDX-License-Identifier: BSD-2-Clause
"""What a run came to: verdicts, findings and the record, as typed data that every other part reads."""
