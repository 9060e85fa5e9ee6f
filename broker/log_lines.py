"""What a program of the broker's writes of its own running: lines of JSON that can't carry anybody's data."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

LOG_KEYS: Final = frozenset(
    {
        "event", "level", "timestamp", "request_id", "fault", "route", "reason", "agency", "flow", "batch", "table",
        "rows", "run", "state", "stage", "seconds", "schema", "agreement", "counts", "size", "code", "place",
        "count", "exit_code",
    }
)  # fmt: skip
"""All that a log line may say: names of ours and numbers, nobody's data."""


def configure_logging() -> None:
    """JSON lines with the keys of `LOG_KEYS` and no other: a line that carries somebody's data can't be written.

    What a library has to say is told as that it did, where, and the kind of fault: its words may quote a value.
    """

    def allowed(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {key: value for key, value in line.items() if key in LOG_KEYS}

    structlog.configure(
        processors=[
            structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True), allowed,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # whichever it is when a line is written
        cache_logger_on_first_use=False,
    )  # fmt: skip
    logging.getLogger("alembic").setLevel(logging.WARNING)
    root = logging.getLogger()
    if not any(isinstance(one, _Libraries) for one in root.handlers):
        root.addHandler(_Libraries(logging.WARNING))


class _Libraries(logging.Handler):
    """Lines of the standard library's logging, without their words and without a stack."""

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        told = {"fault": fault} if fault else {}
        line = structlog.get_logger().error if record.levelno >= logging.ERROR else structlog.get_logger().warning
        line("a library warns", place=f"{record.name}:{record.module}:{record.lineno}", **told)
