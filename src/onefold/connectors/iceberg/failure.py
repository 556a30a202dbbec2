"""What errors of pyiceberg, of its catalogs and of its files mean for a sink."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pyiceberg import exceptions as iceberg

from onefold.disk import durable_step
from onefold.errors import DiskError, DiskFailed, OnefoldError, OutcomeUnknown, SinkRefused, SinkUnavailable

__all__ = ["nothing_written", "step_before", "unknown_outcome"]

_HOPELESS = (
    iceberg.BadRequestError,
    iceberg.ForbiddenError,
    iceberg.NoSuchPropertyException,
    iceberg.NotInstalledError,
    iceberg.OAuthError,
    iceberg.UnauthorizedError,
    iceberg.ValidationError,
    ValueError,
)
"""What no later try mends."""

_NO_PLACE = (NotADirectoryError, PermissionError, FileExistsError)


@contextlib.contextmanager
def nothing_written(label: str, sink: str, *, tells_disk: bool = False) -> Iterator[None]:
    """Before a commit is sent. Errors become SinkUnavailable or SinkRefused; those of onefold pass.

    tells_disk: a full disk passes as well; else the sink is unavailable until there is room.
    """
    try:
        yield
    except DiskError as error:
        cause = error.__cause__
        if isinstance(cause, _NO_PLACE):
            raise _refused(label, sink, f"{cause.strerror}: {cause.filename or error.where.get('where')}") from error
        if tells_disk or isinstance(error, DiskFailed):
            raise  # a failed sync is never tried again
        raise _unavailable(label, sink, error.found or error.summary) from error
    except OnefoldError:
        raise
    except _HOPELESS as error:
        raise _refused(label, sink, _words(error)) from error
    except Exception as error:
        raise _unavailable(label, sink, _words(error)) from error


@contextlib.contextmanager
def step_before(name: str, label: str, sink: str) -> Iterator[None]:
    """A durable step that comes before a commit. What the network does to it is no failure of the disk."""
    with durable_step(name), nothing_written(label, sink):
        yield


@contextlib.contextmanager
def unknown_outcome(label: str, sink: str) -> Iterator[None]:
    """While a commit is with the catalog. Only a commit that the catalog says it refused has surely not landed."""
    try:
        yield
    except iceberg.CommitFailedException:
        raise
    except Exception as error:
        raise OutcomeUnknown(
            f"The catalog did not say what became of a commit to {label}.", found=_words(error), sink=sink
        ) from error


def _refused(label: str, sink: str, found: str) -> SinkRefused:
    return SinkRefused(
        f"{label} will not have us.",
        found=found,
        next_step="Check the catalog's properties, the warehouse and the permissions, then run again: nothing is lost.",
        sink=sink,
    )


def _unavailable(label: str, sink: str, found: object) -> SinkUnavailable:
    return SinkUnavailable(f"{label} cannot be written now.", found=found, sink=sink)


def _words(error: BaseException) -> str:
    """The error's first line."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
