"""The settings of a run as keywords of `Flow`: friendly units, near names."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from onefold.durations import duration_micros, share, size_bytes
from onefold.errors import BuildError
from onefold.flow.expressions import nearest
from onefold.plan import Settings

__all__ = ["run_settings"]

_UNITS = ("_seconds", "_bytes")
_AMBIGUOUS = {"keep_settled": "keep_settled_seconds"}


def run_settings(given: dict[str, Any]) -> Settings:
    """Settings from keywords: durations and sizes as text, and names without their unit. Raises BuildError.

    >>> run_settings({"keep_settled": "2 hours", "epoch_bytes": "1 MiB", "max_dead": "1%"}).keep_settled_seconds
    7200.0
    """
    names = {field.name: field.name for field in fields(Settings)}
    for name in tuple(names):
        for unit in _UNITS:
            short = name.removesuffix(unit)
            if short != name and sum(other.startswith(short + "_") for other in names) == 1:
                names[short] = name
    names.update(_AMBIGUOUS)
    values: dict[str, Any] = {}
    for written, value in given.items():
        if written not in names:
            raise BuildError(f"There is no setting {written}.", next_step=nearest(written, sorted(names)))
        name = names[written]
        if name in values:
            raise BuildError(f"The setting {name} is given twice.", found=", ".join(given))
        values[name] = _value(name, written, value)
    return Settings(**values)


def _value(name: str, written: str, value: Any) -> Any:
    if name.endswith("_seconds"):
        return duration_micros(value, what=written) / 1_000_000
    if name.endswith("_bytes"):
        return _positive(written, size_bytes(value, what=written))
    if name == "max_dead":
        return share(value, what=written)
    return _positive(written, value)


def _positive(written: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise BuildError(f"{written} must be a positive whole number.", found=repr(value))
    return value
