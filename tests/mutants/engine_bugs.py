"""Bugs outside the pure core: where decisions meet the journal, the disk and the state."""

from __future__ import annotations

from tests.mutants.protocol_bugs import Mutant, bug

_ENGINE = "engines/embedded/"

ENGINE = (
    bug(
        "the state's delta is not in the seal",
        _ENGINE + "sealing.py",
        "deltas=draft.deltas,",
        "deltas=(),",
        "survival",
    ),
    bug(
        "a snapshot is named after the next epoch",
        _ENGINE + "conductor.py",
        "self.opened.snapshots.begin(draft.result.number,",
        "self.opened.snapshots.begin(EpochNumber(draft.result.number + 1),",
        "survival",
        "crash",
    ),
    bug(
        "an unknown outcome is taken for done",
        _ENGINE + "deliveries.py",
        "event = CommitUnknown(step.sink, error, isinstance(error.__cause__, TimeoutError))",
        "event = Committed(step.sink)",
        "survival",
    ),
    bug(
        "payloads are freed when they are settled",
        _ENGINE + "archive.py",
        "                free = epoch\n                break",
        "                free = epoch\n                break\n        free = settled",
        "survival",
    ),
    bug(
        "a delivery lacks its last epoch",
        _ENGINE + "archive.py",
        "                found += kept.seal.receipts.get(sink, ())",
        "                found += kept.seal.receipts.get(sink, ()) if epoch < last or first == last else ()",
        "survival",
        "crash",
    ),
    bug(
        "files that seals name are swept",
        _ENGINE + "opening.py",
        "spool.sweep(archive.named_files())",
        "spool.sweep(set())",
        "survival",
    ),
    bug(
        "the watermark is not restored",
        _ENGINE + "opening.py",
        "pipeline.watermarks[name] = {PartitionId(partition): mark for partition, mark in marks.items()}",
        "pipeline.watermarks[name] = {}",
        "survival",
    ),
    bug(
        "a delta is skipped at the start",
        _ENGINE + "opening.py",
        "        if seal.epoch > begin:",
        "        if seal.epoch > begin + 1:",
        "survival",
    ),
    bug(
        "input is read from the beginning after a restart",
        _ENGINE + "opening.py",
        "    ends = {name: dict(marks) for name, marks in newest.ends.items()} if newest else {}",
        "    ends: dict[str, dict[PartitionId, Any]] = {}",
        "survival",
    ),
    bug(
        "epochs that were sealed and not settled are cut again",
        _ENGINE + "opening.py",
        "    newest = opened.history.newest\n",
        "    seals, settled = opened.history.seals, opened.history.settled\n"
        "    newest = next((seal for _, seal in reversed(seals) if seal.epoch <= settled), None)\n",
        "survival",
    ),
    bug(
        "a snapshot is of two epochs",
        _ENGINE + "conductor.py",
        "self.opened.snapshots.begin(draft.result.number, draft.seal, draft.frozen)",
        "self.opened.snapshots.begin(draft.result.number, draft.seal, "
        "{name: table.freeze() for name, table in self.opened.pipeline.tables.items()})",
        "crash of running totals",
    ),
    bug(
        "an equation of the books is not demanded",
        "books.py",
        "            sum(filled[column] for column in left) == sum(filled[column] for column in right),",
        "            True,",
        "books",
    ),
    bug(
        "what vanishes between two operators is not seen",
        "books.py",
        "check(rows_in == emitted,",
        "check(True,",
        "books",
    ),
    bug(
        "payloads go by the clock although they are not settled",
        _ENGINE + "archive.py",
        "if self.freed < e <= settled)",
        "if self.freed < e)",
        "keeping",
    ),
    bug(
        "the books' late flag forgets the maximum",
        _ENGINE + "pipeline.py",
        "marks.get(part.partition))",
        "None)",
        "survival",
    ),
)

STORAGE = (
    bug("the journal is not synced", "journal.py", "PRAGMA synchronous=FULL", "PRAGMA synchronous=OFF", "durability"),
    bug(
        "a taken number is taken again",
        "journal.py",
        "        if last != number:\n            self._con",
        "        if False:\n            self._con",
        "durability",
    ),
    bug(
        "a journal's record is not checked",
        "journal.py",
        "if checksum != _checksum(number, kind, header):",
        "if False:",
        "durability",
    ),
    bug(
        "a journal's attachment is not checked",
        "journal.py",
        "if not isinstance(body, bytes) or _attachment_digest(number, name, body) != checksum:",
        "if False:",
        "durability",
    ),
    bug(
        "a missing record is not seen",
        "journal.py",
        "if previous is not None and number != previous + 1:",
        "if False:",
        "durability",
    ),
    bug(
        "two processes share a journal",
        "journal.py",
        "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "durability",
    ),
    bug(
        "a file's bytes are not synced",
        "disk.py",
        "        sync_file(file.fileno())\n    return size",
        "    return size",
        "durability",
    ),
    bug(
        "the folder is not synced after a rename",
        "disk.py",
        "        temporary.replace(final)\n        sync_folder(final.parent)",
        "        temporary.replace(final)",
        "durability",
    ),
    bug(
        "a free name is not demanded",
        "disk.py",
        "            os.link(temporary, final)",
        "            temporary.replace(final) or temporary.touch()",
        "durability",
        "contract",
    ),
    bug(
        "a new folder is not synced into its parent",
        "disk.py",
        "        sync_folder(path.parent)",
        "        pass",
        "durability",
    ),
    bug(
        "the spool's folder is not synced", "spool.py", "        sync_folder(self.folder)", "        pass", "durability"
    ),
    bug(
        "a spooled file is not checked",
        "spool.py",
        'if xxhash.xxh3_128_hexdigest(body) != detail["checksum"]:',
        "if False:",
        "durability",
    ),
)

STATE = (
    bug(
        "a key that was seen is not in the delta",
        "state/keyset.py",
        "self._delta.append(_to_batch(np.compress(mask, hashes, axis=0), times[mask]))",
        "pass",
        "survival",
        "state",
    ),
    bug(
        "a delta is taken twice",
        "state/keyset.py",
        "        delta, self._delta = self._delta, []",
        "        delta = list(self._delta)",
        "state",
        "survival",
    ),
)

BUGS: tuple[Mutant, ...] = (*ENGINE, *STORAGE, *STATE)
