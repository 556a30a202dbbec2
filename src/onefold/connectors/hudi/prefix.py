"""A Hudi table below a prefix of an S3-compatible store.

Three clients reach it: Hadoop's S3A for Hudi's own Java code, hudi-rs for the timeline, obstore for what we read,
remove and decide ourselves. One set of options serves all three, so it holds only what each of them understands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from onefold.connectors.hudi.naming import INSTALL, PROPERTIES, hudi_rs
from onefold.disk import durable_step
from onefold.errors import ExtraMissing, SinkUnavailable
from onefold.protocols import CheckResult
from onefold.types import Binding

__all__ = ["OPTIONS", "Prefix", "in_our_words"]

OPTIONS = {
    "AWS_ACCESS_KEY_ID": "fs.s3a.access.key",
    "AWS_SECRET_ACCESS_KEY": "fs.s3a.secret.key",
    "AWS_SESSION_TOKEN": "fs.s3a.session.token",
    "AWS_REGION": "fs.s3a.endpoint.region",
    "AWS_ENDPOINT_URL": "fs.s3a.endpoint",
    "AWS_ALLOW_HTTP": "",
}
"""What a table takes, and what Hadoop calls it."""

_OF_A_SESSION = "org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider"
_REQUEST_SECONDS = 60
_RETRIES = 4
_FEW_RETRIES = {
    "fs.s3a.attempts.maximum": "5",
    "fs.s3a.retry.limit": "4",
    "fs.s3a.retry.interval": "200ms",
    "fs.s3a.retry.throttle.limit": "6",
}
"""A delivery that fails is made again by the engine, which says so meanwhile."""


class Prefix:
    """bucket/prefix. See Place."""

    def __init__(self, rest: str, options: Mapping[str, str]) -> None:
        self.uri = f"s3://{rest}"
        self._options = dict(options)
        self._store: Any = None

    @property
    def for_java(self) -> str:
        """By the name of Hadoop's newest client."""
        return self.uri.replace("s3://", "s3a://", 1)

    @property
    def hadoop(self) -> Mapping[str, str]:
        """Buckets are named in the path where an endpoint is given, which every store understands."""
        found = {OPTIONS[name]: value for name, value in self._options.items() if OPTIONS[name]}
        found |= _FEW_RETRIES
        if "AWS_ENDPOINT_URL" in self._options:
            found["fs.s3a.path.style.access"] = "true"
        if "AWS_SESSION_TOKEN" in self._options:
            found["fs.s3a.aws.credentials.provider"] = _OF_A_SESSION
        return found

    @property
    def store(self) -> Any:
        """obstore's. Raises ExtraMissing."""
        if self._store is None:
            known = {name.lower(): value for name, value in self._options.items()}
            may_be_plain = known.pop("aws_allow_http", "").lower() == "true"
            self._store = _obstore().store.from_url(
                self.uri,
                config=known,
                client_options={"allow_http": may_be_plain, "timeout": f"{_REQUEST_SECONDS}s"},
                retry_config={"max_retries": _RETRIES},
            )
        return self._store

    def builder(self) -> Any:
        """Of the prefix."""
        return hudi_rs().HudiTableBuilder.from_base_uri(self.uri).with_storage_options(self._options)

    def has(self, name: str) -> bool:
        """One request."""
        store = self.store
        try:
            with in_our_words():
                _obstore().head(store, name)
        except FileNotFoundError:
            return False
        return True

    def names(self, under: str = "") -> list[str]:
        """A request for each thousand."""
        store = self.store
        with in_our_words():
            return [meta["path"] for page in _obstore().list(store, under or None) for meta in page if meta["path"]]

    def strangers(self) -> list[str]:
        """Objects, and what is like a folder."""
        store = self.store
        with in_our_words():
            found = _obstore().list_with_delimiter(store)
        names = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
        return [name for name in names if name and not name.startswith(".")]

    def parquet(self, name: str) -> pq.ParquetFile:
        """All of it is fetched."""
        store = self.store
        with in_our_words():
            body = _obstore().get(store, name).bytes()
        return pq.ParquetFile(pa.BufferReader(bytes(body)))

    def remove(self, name: str, *, step: str) -> None:
        """One request. Raises SinkUnavailable."""
        store = self.store
        with durable_step(step):
            try:
                with in_our_words():
                    _obstore().delete(store, name)
            except OSError as error:
                raise SinkUnavailable(f"An object of {self.uri} could not be removed.", found=str(error)) from error

    def lay_out(self, create: Callable[[str], None], mark: str) -> None:
        """The file that makes it a table comes last."""
        with durable_step("hudi.create"):
            create(self.for_java)

    def refuse_torn(self, binding: Binding) -> None:
        """An object is there as a whole or not at all."""

    def sync(self, files: Sequence[str]) -> None:
        """A store answers when it is done."""

    def checked(self) -> CheckResult:
        """One request."""
        label = f"Hudi table {self.uri}"
        try:
            return CheckResult(label, "ok", "exists" if self.has(PROPERTIES) else "will be made")
        except (OSError, ExtraMissing) as error:
            return CheckResult(label, "failed", str(error), "Look at the bucket, storage_options= and the network.")


@contextlib.contextmanager
def in_our_words() -> Iterator[None]:
    """obstore's errors as FileNotFoundError, PermissionError or ConnectionError, of one line."""
    from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except BaseError as error:
        text = str(error).partition("\n")[0][:400]
        if "NoSuchBucket" in str(error) or isinstance(error, PermissionDeniedError | UnauthenticatedError):
            raise PermissionError(text) from error
        raise (FileNotFoundError if isinstance(error, NotFoundError) else ConnectionError)(text) from error


def _obstore() -> Any:
    try:
        import obstore
        import obstore.store
    except ImportError as error:
        raise ExtraMissing("Hudi tables in a store need obstore.", next_step=INSTALL) from error
    return obstore
