"""The log of a server: one JSON object a line, on stderr."""

from __future__ import annotations

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


def configure_logs(level: str) -> None:
    """Send the records of the server and of uvicorn to stderr, from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())
    if level == "info":
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # its news are told by ours
