"""A flow into MariaDB and PostgreSQL that commits together, with its judge."""

from __future__ import annotations

from pathlib import Path

import onefold as of
from onefold.testing.harness import Subject
from tests.crash import inputs
from tests.crash.oracle import Count
from tests.services import database_flows as common
from tests.services import mysql_flows, postgres_flows


def together(folder: Path) -> of.Flow:
    """A table in each server and a data set that show every epoch or none of it."""
    return common.together(folder, mysql_flows.table, postgres_flows.table)


def judge_together(folder: Path) -> Count:
    """All of it everywhere, and nothing is left prepared."""
    count = common.judge_together(folder, mysql_flows.rows, postgres_flows.rows)
    return common.judge_left(count, [*mysql_flows.left(), *postgres_flows.left()])


TOGETHER = Subject(build=together, arrive=inputs.arrive, judge=judge_together)
