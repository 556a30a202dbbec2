"""The logger `onefold`, configured here and nowhere else: lines on standard error with flow, sink and epoch."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

__all__ = ["logs_to"]

FIELDS = ("flow", "sink", "epoch")
_STYLES = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}


@contextlib.contextmanager
def logs_to(console: Console, flow: str, *, as_json: bool, is_verbose: bool) -> Iterator[None]:
    """Meanwhile, show warnings and worse (everything, if verbose) on the console."""
    logger = logging.getLogger("onefold")
    lines, level = Lines(console, flow, as_json=as_json), logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.DEBUG if is_verbose else logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)


class Lines(logging.Handler):
    """One line a record; above the live line where there is one."""

    def __init__(self, console: Console, flow: str, *, as_json: bool) -> None:
        super().__init__()
        self._console = console
        self._flow = flow
        self._as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        """Print it. What fails is told by logging itself, on standard error."""
        try:
            fields = {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
            self._print(record, {"flow": self._flow, **fields})
        except (OSError, TypeError, ValueError):
            self.handleError(record)

    def _print(self, record: logging.LogRecord, fields: dict[str, object]) -> None:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        if self._as_json:
            body = {"level": record.levelname.lower(), "at": record.created, **fields, "message": message}
            self._console.print(json.dumps(body, default=str, ensure_ascii=False))
            return
        where = " ".join(f"{name}={value}" for name, value in fields.items())
        level = record.levelname.lower()
        self._console.print(
            Text.assemble((f"{level}: ", _STYLES.get(record.levelname, "dim")), message, (f"  [{where}]", "dim"))
        )
