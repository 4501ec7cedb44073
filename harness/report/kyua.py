# SPDX-License-Identifier: BSD-2-Clause
"""A run as a results database of Kyua, format 3: `kyua report`, `report-html` and `report-junit` read it.

A test program of Kyua's is a file of tests here, a test case one test of it.  Kyua knows neither panics nor eras: the
reason of a result begins with our verdict.  When each test began is not on record: tests of a worker follow one another
from the beginning of the first test on, so that durations are right and times of day nearly so.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from harness.config import share
from harness.files import write_whole
from harness.report.told import THE_RUN, Outcome, Told, end_of, one_line, printable, tell
from harness.report.words import sentence
from harness.results.record import RunRecord, TestResult
from harness.results.verdict import Verdict

_FORMAT = 3
_TABLES = {
    "metadata": "schema_version INTEGER PRIMARY KEY, timestamp TIMESTAMP NOT NULL",
    "contexts": "cwd TEXT NOT NULL",
    "env_vars": "var_name TEXT PRIMARY KEY, var_value TEXT NOT NULL",
    "metadatas": "metadata_id INTEGER NOT NULL, property_name TEXT NOT NULL, property_value TEXT,"
    " PRIMARY KEY (metadata_id, property_name)",
    "test_programs": "test_program_id INTEGER PRIMARY KEY AUTOINCREMENT, absolute_path TEXT NOT NULL,"
    " root TEXT NOT NULL, relative_path TEXT NOT NULL, test_suite_name TEXT NOT NULL, metadata_id INTEGER,"
    " interface TEXT NOT NULL",
    "test_cases": "test_case_id INTEGER PRIMARY KEY AUTOINCREMENT, test_program_id INTEGER REFERENCES test_programs,"
    " name TEXT NOT NULL, metadata_id INTEGER",
    "test_results": "test_case_id INTEGER PRIMARY KEY REFERENCES test_cases, result_type TEXT NOT NULL,"
    " result_reason TEXT, start_time TIMESTAMP NOT NULL, end_time TIMESTAMP NOT NULL",
    "files": "file_id INTEGER PRIMARY KEY, contents BLOB NOT NULL",
    "test_case_files": "test_case_id INTEGER NOT NULL REFERENCES test_cases, file_name TEXT NOT NULL,"
    " file_id INTEGER NOT NULL REFERENCES files, PRIMARY KEY (test_case_id, file_name)",
}
_TYPES = {
    Outcome.PASSED: "passed",
    Outcome.FAILED: "failed",
    Outcome.BROKEN: "broken",
    Outcome.EXPECTED: "expected_failure",
    Outcome.SKIPPED: "skipped",
}
_SUITE = "dfly-harness"
_ERRORS = "__STDERR__"
_OF_PROGRAMS = 1  # no property has this metadata


def write_kyua(record: RunRecord, file: Path) -> None:
    """Write RECORD to FILE, a database that Kyua reads; raises OSError when it cannot be written."""
    with sqlite3.connect(":memory:") as database:
        for name, columns in _TABLES.items():
            database.execute(f"CREATE TABLE {name} ({columns})")
        _fill(database, record)
        database.commit()
        content = database.serialize()
    write_whole(file, content)


def _fill(database: sqlite3.Connection, record: RunRecord) -> None:
    begun = datetime.fromisoformat(record.first_test or record.started)
    begun = begun if begun.tzinfo is not None else begun.replace(tzinfo=UTC)
    database.execute("INSERT INTO metadata VALUES (?, ?)", (_FORMAT, int(begun.timestamp())))
    root = record.root or str(share())
    database.execute("INSERT INTO contexts VALUES (?)", (record.folder or root,))
    database.executemany("INSERT INTO env_vars VALUES (?, ?)", _about(record))
    told = list(tell(record))
    if said := end_of(record):
        verdict = record.trouble.verdict if record.trouble is not None else Verdict.HARNESS_ERROR
        told.append(Told(THE_RUN, Outcome.BROKEN, said, TestResult(THE_RUN, verdict)))
    programs: dict[str, int] = {}
    clocks: defaultdict[str, int] = defaultdict(lambda: int(begun.timestamp() * 1_000_000))
    for each in told:
        path = each.at[0]
        if path not in programs:
            programs[path] = _add_program(database, path, root)
        clock = clocks[each.result.worker]
        clocks[each.result.worker] = end = clock + int(each.result.seconds * 1_000_000)
        _add_case(database, programs[path], each, (clock, end))


def _about(record: RunRecord) -> Iterable[tuple[str, str]]:
    """Return what `kyua report --verbose` shows as the environment: what was tested, and with what."""
    given = {
        "DFLY_TARGET": record.target,
        "DFLY_KERNEL_SHA256": record.kernel_digest,
        "DFLY_FEATURES": record.features,
        "DFLY_ACCELERATOR": record.accelerator,
        "DFLY_IS_DRAGONFLY": "yes" if record.is_dragonfly else "NO: these results say nothing about DragonFly",
        "DFLY_EXIT_STATUS": str(record.exit_status),
    }
    return [(name, one_line(value)) for name, value in given.items() if value]


def _add_program(database: sqlite3.Connection, path: str, root: str) -> int:
    columns = "absolute_path, root, relative_path, test_suite_name, metadata_id, interface"
    values = (str(Path(root) / path), root, path, _SUITE, _OF_PROGRAMS, "plain")
    done = database.execute(f"INSERT INTO test_programs ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)  # noqa: S608
    return int(done.lastrowid or 0)


def _add_case(database: sqlite3.Connection, program: int, each: Told, times: tuple[int, int]) -> None:
    # A colon would end the name of the program in Kyua's filters.
    name = each.test.partition("::")[2].replace("::", ".") or "main"
    done = database.execute(
        "INSERT INTO test_cases (test_program_id, name, metadata_id) VALUES (?, ?, 0)", (program, one_line(name))
    )
    case = int(done.lastrowid or 0)
    metadata = _OF_PROGRAMS + case
    database.execute("UPDATE test_cases SET metadata_id = ? WHERE test_case_id = ?", (metadata, case))
    about = one_line(sentence(each.result))
    database.execute("INSERT INTO metadatas VALUES (?, 'description', ?)", (metadata, about))
    reason = each.why or None
    database.execute("INSERT INTO test_results VALUES (?, ?, ?, ?, ?)", (case, _TYPES[each.outcome], reason, *times))
    if each.outcome in {Outcome.FAILED, Outcome.BROKEN} and (log := each.log):
        text = printable("\n".join([*log, ""])).encode()
        file = database.execute("INSERT INTO files (contents) VALUES (?)", (text,)).lastrowid
        database.execute("INSERT INTO test_case_files VALUES (?, ?, ?)", (case, _ERRORS, file))
