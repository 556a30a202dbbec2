"""What a test needs from the machine. A test that lacks it is named at the end of the run, with the reason."""

from __future__ import annotations

import shutil

import pytest

__all__ = ["need", "need_program"]


def need(condition: object, reason: str) -> None:
    """Skip the running test, or at module level the whole file, unless the condition holds.

    The end of the run names the tier and the reason; with ONEFOLD_REQUIRE=all it is a failure.

    Args:
        condition: whether it is there.
        reason: what is missing, for instance "no PostgreSQL server at PG_URL".
    """
    if not condition:
        pytest.skip(reason, allow_module_level=True)


def need_program(name: str) -> str:
    """The path of a program, or skip as `need` does."""
    path = shutil.which(name)
    need(path, f"no {name} on the PATH")
    return str(path)
