"""Bytes to Arrow and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onefold.protocols import Format

__all__ = ["format_named", "format_names"]


def format_names() -> tuple[str, ...]:
    """The formats that `format_named` knows."""
    return ("csv", "json", "parquet", "raw")


def format_named(name: str, **options: Any) -> Format:
    """The format of that name; options are its dialect (Csv's arguments; the others have none).

    Raises BuildError for an unknown name or option, SchemaError for an impossible dialect.
    """
    from difflib import get_close_matches

    from onefold.errors import BuildError
    from onefold.formats.csv import Csv
    from onefold.formats.json import JsonLines
    from onefold.formats.raw import Parquet, Raw

    known: dict[str, type[Any]] = {"csv": Csv, "json": JsonLines, "parquet": Parquet, "raw": Raw}
    if name in ("avro", "json_schema", "protobuf"):
        raise BuildError(
            f"The format {name} needs a schema registry.", next_step=f'Write format=of.{name}("http://localhost:8081").'
        )
    if name not in known:
        near = get_close_matches(name, known, n=1)
        advice = f"Did you mean {near[0]!r}?" if near else None
        raise BuildError(f"There is no format {name!r}.", expected=", ".join(known), next_step=advice)
    try:
        made: Format = known[name](**options)
    except TypeError as error:
        raise BuildError(f"The format {name} does not take these options: {error}.", found=sorted(options)) from None
    return made
