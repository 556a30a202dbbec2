"""The database servers whose sinks share their tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onefold.testing.harness import Subject
from tests.services import both_flows, mysql_controls, mysql_flows, postgres_controls, postgres_flows

__all__ = ["BOTH", "MYSQL", "POSTGRES", "System"]


@dataclass(frozen=True)
class System:
    """One server, or two.

    Args:
        name: in the names of tests.
        steps: what the names of the durable steps that are met begin with.
        flows, controls: its modules of this folder.
        server, forks: fixtures: what starts it, and the ForkServer of its flows.
        together: what commits together.
        part: of the usual number of schedules; what the others share is tried by them as well.
    """

    name: str
    steps: str
    flows: Any
    controls: Any
    server: str
    forks: str
    together: Subject
    part: float = 1.0

    def __str__(self) -> str:
        return self.name


POSTGRES = System(
    name="postgres",
    steps="postgres",
    flows=postgres_flows,
    controls=postgres_controls,
    server="database",
    forks="database_server",
    together=postgres_flows.TOGETHER,
)
MYSQL = System(
    name="mysql",
    steps="mysql",
    flows=mysql_flows,
    controls=mysql_controls,
    server="mysql_database",
    forks="mysql_server",
    together=mysql_flows.TOGETHER,
    part=0.3,
)
BOTH = System(
    name="both",
    steps="mysql",
    flows=mysql_flows,
    controls=mysql_controls,
    server="mysql_database",
    forks="both_server",
    together=both_flows.TOGETHER,
    part=0.15,
)
