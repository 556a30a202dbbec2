"""Bugs of the sinks: rows and token that are not one, and names that come too early or too late."""

from __future__ import annotations

from tests.mutants.protocol_bugs import bug

_SQLITE = "connectors/sqlite/sink.py"
_LOG = "connectors/files/log.py"

SINKS = (
    bug(
        "DuckDB: the token is not written",
        "connectors/duckdb/sink.py",
        "                    move_token(connection, self._table, binding, move)",
        "                    pass",
        "contract",
    ),
    bug(
        "memory: the token is not written",
        "connectors/memory/sink.py",
        "store.tokens[_token_key(binding)] = move.new",
        "pass",
        "contract",
    ),
    bug(
        "memory: the token is not compared",
        "connectors/memory/sink.py",
        "if move is not None and not same_token(found, move.expected):",
        "if False:",
        "contract",
    ),
    bug(
        "DuckDB: the token is moved in a second transaction",
        "connectors/duckdb/sink.py",
        """                if move is not None:
                    move_token(connection, self._table, binding, move)
                if rows.num_rows:
                    with refusing_changes(self._table.label, binding):
                        demand_table(connection, self._table, binding)
                    write(connection, self._table, binding, rows)
            with durable_step("duckdb.commit"):
                self._finish(connection)
""",
        """                if rows.num_rows:
                    with refusing_changes(self._table.label, binding):
                        demand_table(connection, self._table, binding)
                    write(connection, self._table, binding, rows)
            with durable_step("duckdb.commit"):
                self._finish(connection)
            if move is not None:
                connection.begin()
                move_token(connection, self._table, binding, move)
                with durable_step("duckdb.commit"):
                    self._finish(connection)
""",
        "contract of duckdb",
    ),
    bug(
        "DuckDB: a refused token is no error",
        "connectors/duckdb/tables.py",
        "        raise _refused(connection, binding, move.expected)",
        "        return",
        "contract of duckdb",
    ),
    bug(
        "DuckDB: seals are not compared",
        "connectors/duckdb/tables.py",
        "AND epoch = ? AND seal = ? RETURNING epoch",
        "AND epoch = ? AND ? IS NOT NULL RETURNING epoch",
        "contract of duckdb",
    ),
    bug(
        "SQLite: the token is not written",
        _SQLITE,
        "                    _move_token(connection, self._table, binding, move)",
        "                    pass",
        "contract of sqlite",
    ),
    bug(
        "SQLite: the token is not compared",
        _SQLITE,
        "    if not same_token(found, move.expected):",
        "    if False:",
        "contract of sqlite",
    ),
    bug(
        "SQLite: the token is moved in a second transaction",
        _SQLITE,
        """                    _move_token(connection, self._table, binding, move)
                if rows.num_rows:
                    self._write(connection, rows)
""",
        """                    _move_token(connection, self._table, binding, move)
                if rows.num_rows and move is not None:
                    with durable_step("sqlite.commit"):
                        self._finish(connection)
                    connection.execute("BEGIN IMMEDIATE")
                if rows.num_rows:
                    self._write(connection, rows)
""",
        "contract of sqlite",
    ),
    bug(
        "SQLite: commits are not synced",
        _SQLITE,
        'connection.execute("PRAGMA synchronous = EXTRA")',
        'connection.execute("PRAGMA synchronous = OFF")',
        "durability",
    ),
    bug(
        "SQLite: an upsert leaves the old row",
        _SQLITE,
        'connection.executemany(f"DELETE FROM {table} WHERE {same}", last.keys())',
        "pass",
        "contract of sqlite",
    ),
    bug(
        "Kafka: a producer in doubt goes on",
        "connectors/kafka/producing.py",
        "return self.is_suspect and self._transactions > 0",
        "return False",
        "kafka producer",
    ),
    bug(
        "Kafka: a broken connection is no doubt",
        "connectors/kafka/producing.py",
        "if facility in _SUSPECT_LOGS:",
        "if False:",
        "kafka producer",
    ),
    bug(
        "Kafka: a producer is destroyed under a call",
        "connectors/kafka/producing.py",
        "            if not self._is_called:\n                self._producer.close()",
        "            self._producer.close()",
        "kafka producer",
    ),
    bug(
        "files: files get their names before the entry",
        "connectors/files/sink.py",
        "            is_ours = log.append(entry)",
        "            log.finish(entry)\n            is_ours = log.append(entry)",
        "contract of files",
    ),
    bug(
        "files: the token is not compared",
        "connectors/files/sink.py",
        "        if not same_token(found, move.expected):",
        "        if False:",
        "contract of files",
    ),
    bug(
        "files: an entry replaces the one that is there",
        _LOG,
        """        return publish_exclusive(temporary, self._path(entry.number), step="files.commit")""",
        """        with durable_step("files.commit"):
            temporary.replace(self._path(entry.number))
        return True""",
        "contract of files",
    ),
    bug(
        "files: an entry whose number was compacted counts",
        "connectors/files/sink.py",
        "        if not log.is_newest(entry):",
        "        if False:",
        "connectors",
        "contract of files",
    ),
    bug(
        "files: what a killed instance left is not finished",
        "connectors/files/sink.py",
        "        log.finish(last)\n",
        "",
        "contract of files",
    ),
    bug(
        "files: what a late commit may still name is removed",
        "connectors/files/sink.py",
        " and int(parts[1]) <= token.epoch",
        "",
        "connectors",
    ),
    bug(
        "files: staged files are not verified",
        "connectors/files/sink.py",
        "        if not path.exists() or checksum_of(path) != checksum:",
        "        if not path.exists():",
        "connectors",
    ),
    bug(
        "files: an entry is not checked",
        _LOG,
        'if body.pop("checksum") != _digest(body):',
        'if not body.pop("checksum"):',
        "connectors",
    ),
    bug(
        "files: the folder is not synced after a commit",
        _LOG,
        "                sync_folder(self.folder)\n                sync_folder(self.staged)",
        "                pass",
        "durability",
    ),
)
