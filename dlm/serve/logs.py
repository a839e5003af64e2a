"""The log of a server: one JSON object a line, on stderr."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

LOGGERS: Final = ("dlm.serve", "dlm.access", "uvicorn.error")
STANDARD: Final = frozenset((*vars(logging.makeLogRecord({})), "message", "color_message"))
"""Attributes of every record, and one that uvicorn adds for terminals."""


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, and its extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; line breaks inside are escaped."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= {name: value for name, value in vars(record).items() if name not in STANDARD}
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def is_no_cut(record: logging.LogRecord) -> bool:
    """Return False for a request that was cut off at the end of the server, which uvicorn reports
    as a fault of the app; the server itself tells how many there were.
    """
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, asyncio.CancelledError)


def configure_logs(level: str) -> None:
    """Send the records of the server and of uvicorn to stderr, from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(is_no_cut)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())
    if level == "info":
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # its news are told by ours
