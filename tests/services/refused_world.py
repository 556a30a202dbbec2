"""A table made by the test, which refuses rows, and a flow that writes to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onefold as of
from onefold.engines.embedded.deadletters import DeadLetter, dead_letters
from tests.services.database_systems import System


class World:
    """Tables of one server in a place of the test's own."""

    def __init__(self, folder: Path, system: System) -> None:
        self.folder = folder
        self.system = system

    def execute(self, *statements: str) -> None:
        """Each by itself."""
        self.system.flows.execute(self.folder, *statements)

    def write(self, records: Sequence[Mapping[str, Any]], *, key: str = "", refused: Any = "dead-letter") -> None:
        """Append them to `t`, or upsert by the key; and append them to `all`, which takes everything."""
        stream = self._read(records, {"id": "BIGINT", "v": "VARCHAR"})
        if key:
            stream.upsert(self.table("t"), key=key, refused=refused)
        else:
            stream.append(self.table("t"), refused=refused)
        stream.append(self.table("all_rows"))
        self.flow.run(state=self.folder / "state")

    def delete(self, *numbers: int, target: Any = None, refused: Any = "dead-letter") -> None:
        """Rows of `t`, by their id."""
        records = [{"id": number, "v": "x", "_op": "delete"} for number in numbers]
        stream = self._read(records, {"id": "BIGINT", "v": "VARCHAR", "_op": "VARCHAR"})
        stream.upsert(target or self.table("t"), key="id", refused=refused)
        self.flow.run(state=self.folder / "state")

    def table(self, name: str) -> Any:
        """As a target."""
        return self.system.flows.table(self.folder, name)

    def stored(self, name: str = "t") -> list[tuple[Any, ...]]:
        """What is there."""
        return list(self.system.flows.rows(self.folder, f"SELECT id, v FROM {name} ORDER BY id, v"))

    def letters(self) -> Sequence[DeadLetter]:
        """The dead letters."""
        return dead_letters(self.folder / "state" / "refused", limit=10_000)[0]

    def refused(self) -> list[int]:
        """The ids of the dead letters, in order."""
        return [json.loads(letter.raw)["id"] for letter in self.letters()]

    def _read(self, records: Sequence[Mapping[str, Any]], schema: Mapping[str, str]) -> Any:
        (self.folder / "in").mkdir(exist_ok=True)
        (self.folder / "in" / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        self.flow = of.Flow("refused", commit="together")
        return self.flow.read(of.files(str(self.folder / "in" / "*.jsonl")), schema=schema, name="in")


def records(count: int, **changed: str) -> list[dict[str, Any]]:
    """Numbered from 0; changed: the values of some, by n0, n1 …"""
    return [{"id": number, "v": changed.get(f"n{number}", "fine")} for number in range(count)]
