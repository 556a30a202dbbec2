"""What every sink must keep, seen from one process; crashes and rivals are in contract_crashes."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from onefold.errors import (
    NotSupported,
    RowsRefused,
    SchemaError,
    SinkRefused,
    SinkUnavailable,
    TargetTaken,
    TokenRefused,
)
from onefold.testing.contract_case import (
    SinkBench,
    after_restart,
    bits,
    equal,
    expect,
    move,
    numbered,
    raises,
    token,
    typed_values,
)
from onefold.types import Guarantee

__all__ = ["DELETE_CONTRACTS", "SINK_CONTRACTS", "UPSERT_CONTRACTS"]

HOSTILE = "ta\"b'le; DROP -- ü.日 %s"


def the_token_comes_back_with_its_positions(bench: SinkBench) -> None:
    """A new target has no token; what a commit left is found by every later instance, positions and all."""
    sink, found = bench.instance()
    equal(found, None, "a new target has no token")
    sink.commit([bench.prepare(sink, 1, numbered(1))], move(0, 1))
    again, found = bench.instance(2)
    equal(found, token(1), "the token comes back")
    equal(found.ends if found else None, token(1).ends, "its positions come back")
    equal(again.open(bench.binding(2)), token(1), "open may be called again")


def the_first_move_is_insert_if_absent(bench: SinkBench) -> None:
    """Two instances that found no token: the second is refused and writes nothing."""
    first, _ = bench.instance(1)
    second, _ = bench.instance(2)
    if bench.case.fences:
        first, second = second, first
    first.commit([bench.prepare(first, 1, numbered(1))], move(0, 1))
    receipt = bench.prepare(second, 1, numbered(2))
    raises(TokenRefused, lambda: second.commit([receipt], move(0, 1, "b")), "a second first move is refused")
    equal((bench.ids(), bench.look()[1]), ([1], token(1)), "a refused commit leaves nothing")


def a_refused_move_leaves_nothing(bench: SinkBench) -> None:
    """The move is compared by epoch and by seal."""
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, numbered(1))], move(0, 1))
    for wrong in (move(2, 3), move(0, 2)):
        receipt = bench.prepare(sink, 2, numbered(2))
        raises(TokenRefused, lambda w=wrong, r=receipt: sink.commit([r], w), "another epoch is refused")  # type: ignore[misc]
    other = move(1, 2)
    forked = type(other)(token(1, "f"), other.new)
    receipt = bench.prepare(sink, 2, numbered(2))
    raises(TokenRefused, lambda: sink.commit([receipt], forked), "the same epoch of another history is refused")
    equal((bench.ids(), bench.look()[1]), ([1], token(1)), "a refused commit leaves nothing")
    sink.open(bench.binding())
    sink.commit([bench.prepare(sink, 2, numbered(2))], move(1, 2))
    equal(bench.ids(), [1, 2], "the right move still lands")


def an_empty_commit_moves_the_token_alone(bench: SinkBench) -> None:
    """Tails of empty epochs are told to the sink."""
    sink, _ = bench.instance()
    sink.commit([], move(0, 1))
    sink.commit([bench.prepare(sink, 2, [])], move(1, 2))
    equal((bench.ids(), bench.look()[1]), ([], token(2)), "no rows, and the token moved")
    sink.commit([], move(2, 5))
    equal(bench.look()[1], token(5), "the token moved again")


def epochs_delivered_together_keep_their_order(bench: SinkBench) -> None:
    """Several receipts in one commit: all rows once, in order."""
    sink, _ = bench.instance()
    receipts = [bench.prepare(sink, epoch, numbered(epoch * 10, epoch * 10 + 1)) for epoch in (1, 2, 3)]
    sink.commit(receipts, move(0, 3))
    rows, found = bench.look()
    equal([row["id"] for row in rows], [10, 11, 20, 21, 30, 31], "rows stand in the order of epochs")
    equal(found, token(3), "one move covers all")


def a_receipt_is_enough_on_another_instance(bench: SinkBench) -> None:
    """Prepared by an instance that is gone, committed by the next from the receipt alone."""
    sink, _ = bench.instance()
    small = bench.prepare(sink, 1, numbered(1))
    large = bench.prepare(sink, 2, _large())
    sink.close()
    later, _ = bench.instance(2)
    receipts = [after_restart(receipt) for receipt in (small, large)]
    later.commit(receipts, move(0, 2))
    expect(len(bench.ids()) == small.rows + large.rows, "every row of a large epoch arrives once")


def a_zombie_is_refused(bench: SinkBench) -> None:
    """An instance that slept while a later one went on writes nothing more, whatever it prepared before."""
    zombie, _ = bench.instance(1)
    zombie.commit([bench.prepare(zombie, 1, numbered(1))], move(0, 1))
    late = bench.prepare(zombie, 2, numbered(-2))
    later, _ = bench.instance(2)
    for epoch in range(2, 24):
        later.commit([bench.prepare(later, epoch, numbered(epoch))], move(epoch - 1, epoch))
    raises(TokenRefused, lambda: zombie.commit([late], move(1, 2, "z")), "a zombie is refused")
    equal(bench.ids(), list(range(1, 24)), "a zombie writes nothing")
    later.commit([bench.prepare(later, 24, numbered(24))], move(23, 24))
    equal(bench.ids(), list(range(1, 25)), "a zombie does not disturb the others")


def sinks_of_one_target_have_tokens_of_their_own(bench: SinkBench) -> None:
    """Two names, one target: neither sees the other's token."""
    bench = bench.under(is_shared=True)
    first, _ = bench.instance()
    beside = bench.under(sink="another.sink")
    second, found = beside.instance()
    equal(found, None, "another name has no token yet")
    first.commit([bench.prepare(first, 1, numbered(1))], move(0, 1))
    second.commit([beside.prepare(second, 1, numbered(2))], move(0, 1, "b"))
    first.commit([bench.prepare(first, 2, numbered(3))], move(1, 2))
    equal(bench.look()[1], token(2), "the first has its token")
    equal(beside.look()[1], token(1, "b"), "the second has its own")
    equal(sorted({*bench.ids(), *beside.ids()}), [1, 2, 3], "both wrote")


def a_target_of_another_flow_is_refused_unless_shared(bench: SinkBench) -> None:
    """Whoever writes there has left a token. Each side says for itself that it shares; targets beside are free."""
    first, _ = bench.instance()
    first.commit([bench.prepare(first, 1, numbered(1))], move(0, 1))
    for other in (bench.under(flow="another.flow"), bench.under(sink="another.sink")):
        raises(TargetTaken, other.instance, "a target with another's token is refused")
        beside, found = other.under(table="beside").instance()
        equal(found, None, "another target is free")
        beside.close()
    equal(bench.ids(), [1], "the refusal changed nothing")
    sharing = bench.under(flow="another.flow", is_shared=True)
    second, _ = sharing.instance()
    second.commit([sharing.prepare(second, 1, numbered(2))], move(0, 1, "b"))
    raises(TargetTaken, bench.instance, "the first is refused too until it says that it shares")
    agreed = bench.under(is_shared=True)
    equal(agreed.look()[1], token(1), "then it goes on from its own token")
    second.commit([sharing.prepare(second, 2, numbered(3))], type(move(1, 2))(token(1, "b"), token(2, "b")))
    equal(sorted({*agreed.ids(), *sharing.ids()}), [1, 2, 3], "both wrote")


def names_are_taken_as_they_are(bench: SinkBench) -> None:
    """Quotes, dots and other scripts in the names of tables, columns, flows and sinks."""
    column = "co'l\"u;mn ü"
    schema = pa.schema([("id", pa.int64()), (column, pa.string())])
    hostile = bench.under(table=HOSTILE, sink="s'i\"n;k/ü..", schema=schema)
    if bench.case.has_plain_columns:
        raises(SchemaError, hostile.instance, "a name that cannot be kept is refused")
        column = "co_l"
        hostile = hostile.under(schema=pa.schema([("id", pa.int64()), (column, pa.string())]))
    sink, _ = hostile.instance()
    sink.commit([hostile.prepare(sink, 1, [{"id": 1, column: "x'\"\n"}])], move(0, 1))
    rows, found = hostile.look()
    equal((rows, found), ([{"id": 1, column: "x'\"\n"}], token(1)), "hostile names and values come back")


def values_are_exact_or_the_type_is_refused(bench: SinkBench) -> None:
    """Every type comes back value for value, or `open` raises a SchemaError that names its column."""
    typed = {f"c{number}": case for number, case in enumerate(typed_values())}
    while typed:
        schema = pa.schema([("id", pa.int64()), *((name, kind) for name, (kind, _) in typed.items())])
        wide = bench.under(schema=schema)
        try:
            sink, _ = wide.instance()
            break
        except SchemaError as error:
            refused = typed.pop(str(error.where.get("column")), None)
            expect(refused is not None, "a refused type names its column", found=error)
    expect(bool(typed), "some types can be kept")
    values = {name: [*values, *[None] * 9] for name, (_, values) in typed.items()}
    count = 1 + max(len(values) for _, values in typed.values())
    if bench.case.is_finite:
        values = {name: [None if value == math.inf else value for value in column] for name, column in values.items()}
        _infinity_is_refused(bench)
    rows = [{"id": at, **{name: column[at] for name, column in values.items()}} for at in range(count)]
    sink.commit([wide.prepare(sink, 1, rows)], move(0, 1))
    found = sorted(wide.look()[0], key=lambda row: int(row["id"]))
    for name, (kind, _) in typed.items():
        equal([bits(row[name]) for row in found], [bits(row[name]) for row in rows], f"{kind} is exact")


def _infinity_is_refused(bench: SinkBench) -> None:
    """Before the epoch is sealed, or when it is delivered; nothing is written."""
    floats = bench.under(schema=pa.schema([("id", pa.int64()), ("number", pa.float64())]), table="floats")
    sink, _ = floats.instance()
    for number in (math.inf, -math.inf, math.nan):
        rows = [{"id": 1, "number": number}]
        raises(RowsRefused, lambda r=rows: sink.commit([floats.prepare(sink, 1, r)], move(0, 1)), "it is refused")  # type: ignore[misc]
    equal(floats.ids(), [], "a refused row leaves nothing")


def a_target_of_another_shape_is_refused(bench: SinkBench) -> None:
    """A column that changed its type is found when the sink is opened, before any row is lost."""
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, numbered(1))], move(0, 1))
    changed = bench.under(schema=pa.schema([("id", pa.string()), ("name", pa.string())]))
    raises(SchemaError, changed.instance, "a column of another type is refused")
    equal(bench.ids(), [1], "the refusal changed nothing")


def a_target_that_is_not_there_is_told(bench: SinkBench) -> None:
    """Says SinkUnavailable, or SinkRefused where no later try can help, and still takes rows into the spool."""
    if bench.case.make_unavailable is None:
        return
    bench.case.make_unavailable(bench.folder, bench.table)
    sink = bench.case.make(bench.folder, bench.table, bench.mode, bench.key)
    raises((SinkUnavailable, SinkRefused), lambda: sink.open(bench.binding()), "an unreachable target is told")
    receipt = bench.prepare(sink, 1, numbered(1))
    equal(receipt.rows, 1, "rows are prepared while the target is away")
    sink.close()


def closing_is_always_possible(bench: SinkBench) -> None:
    """Before open, twice, and the promise needs no connection."""
    sink = bench.case.make(bench.folder, bench.table, bench.mode, bench.key)
    sink.close()
    sink.close()
    expect(bool(sink.promise.target), "a promise names its target without a connection")
    equal(
        sink.promise, bench.case.make(bench.folder, bench.table, bench.mode, bench.key).promise, "the promise is pure"
    )


def weaker_guarantees_leave_the_token_alone(bench: SinkBench) -> None:
    """Without a move the rows are written, and no token."""
    weaker = bench.under(guarantee=Guarantee.AT_LEAST_ONCE)
    sink, _ = weaker.instance()
    receipt, large = weaker.prepare(sink, 1, numbered(1)), weaker.prepare(sink, 2, _large())
    sink.commit([receipt], None)
    sink.commit([large], None)
    rows, found = weaker.look()
    equal((len(rows), found), (1 + large.rows, None), "rows without a token")
    sink.commit([], None)


# -------------------------------------------------------------------------------------------------------------- upserts


def the_last_row_of_a_key_wins(bench: SinkBench) -> None:
    """Inside a batch, across epochs of one commit, and across commits."""
    sink, _ = bench.instance()
    first = bench.prepare(sink, 1, [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 1, "name": "c"}])
    second = bench.prepare(sink, 2, [{"id": 2, "name": "d"}, {"id": 3, "name": "e"}])
    sink.commit([first, second], move(0, 2))
    sink.commit([bench.prepare(sink, 3, [{"id": 3, "name": "f"}])], move(2, 3))
    equal(_by_id(bench), {1: ["c"], 2: ["d"], 3: ["f"]}, "one row a key, the last")


def null_is_a_key_like_any_other(bench: SinkBench) -> None:
    """IS NOT DISTINCT FROM: (NULL, 1) twice is one row; it differs from (NULL, 2) and (0, 1)."""
    schema = pa.schema([("id", pa.int64()), ("part", pa.string()), ("name", pa.string())])
    wide = bench.under(schema=schema, key=("id", "part"), table="nulls")
    sink, _ = wide.instance()
    rows = [(None, "x", "1"), (None, "x", "2"), (None, None, "3"), (0, "x", "4"), (1, None, "5"), (1, "", "6")]
    named: list[dict[str, Any]] = [dict(zip(schema.names, row, strict=True)) for row in rows]
    sink.commit([wide.prepare(sink, 1, named)], move(0, 1))
    again: list[dict[str, Any]] = [{"id": None, "part": None, "name": "7"}, {"id": 1, "part": None, "name": "8"}]
    sink.commit([wide.prepare(sink, 2, again)], move(1, 2))
    found = {(row["id"], row["part"]): row["name"] for row in wide.look()[0]}
    expected = {(None, "x"): "2", (None, None): "7", (0, "x"): "4", (1, None): "8", (1, ""): "6"}
    equal((found, len(wide.look()[0])), (expected, len(expected)), "NULL keys match themselves")


def keys_differ_by_every_byte(bench: SinkBench) -> None:
    """No collation, no trimming, no normal forms."""
    schema = pa.schema([("id", pa.string()), ("name", pa.string())])
    texts = bench.under(schema=schema, table="texts")
    sink, _ = texts.instance()
    keys = ["a", "A", "a ", " a", "ä", "a\u0308", "", "0", "00"]
    sink.commit([texts.prepare(sink, 1, [{"id": key, "name": "x"} for key in keys])], move(0, 1))
    equal(sorted(row["id"] for row in texts.look()[0]), sorted(keys), "different bytes are different keys")


def a_key_may_be_the_whole_row(bench: SinkBench) -> None:
    """Nothing is left to update."""
    whole = bench.under(key=("id", "name"), table="whole")
    sink, _ = whole.instance()
    sink.commit([whole.prepare(sink, 1, numbered(1, 2, 1))], move(0, 1))
    sink.commit([whole.prepare(sink, 2, numbered(2, 3))], move(1, 2))
    equal(whole.ids(), [1, 2, 3], "one row a key")


def an_upsert_without_a_key_is_refused(bench: SinkBench) -> None:
    """When the flow is built, not at midnight."""
    raises((NotSupported, SchemaError), lambda: bench.under(key=()).instance(), "an upsert needs a key")


def deletes_remove_the_key(bench: SinkBench) -> None:
    """`_op` is not stored; the last operation on a key counts; deleting what is not there is no error."""
    schema = pa.schema([("id", pa.int64()), ("name", pa.string()), ("_op", pa.string())])
    changes = bench.under(schema=schema, table="changes")
    sink, _ = changes.instance()
    steps = [(1, "upsert"), (2, "upsert"), (3, "upsert"), (2, "delete"), (9, "delete"), (3, "delete"), (3, "upsert")]
    rows: list[dict[str, Any]] = [
        {"id": number, "name": str(at), "_op": step} for at, (number, step) in enumerate(steps)
    ]
    sink.commit([changes.prepare(sink, 1, rows)], move(0, 1))
    rows = [{"id": 1, "name": None, "_op": "delete"}, {"id": 4, "name": "x", "_op": "upsert"}]
    sink.commit([changes.prepare(sink, 2, rows)], move(1, 2))
    equal(sorted(map(_pair, changes.look()[0])), [(3, "6"), (4, "x")], "deleted keys are gone, the others stay")
    expect("_op" not in changes.look()[0][0], "_op is not stored")


SINK_CONTRACTS = (
    the_token_comes_back_with_its_positions,
    the_first_move_is_insert_if_absent,
    a_refused_move_leaves_nothing,
    an_empty_commit_moves_the_token_alone,
    epochs_delivered_together_keep_their_order,
    a_receipt_is_enough_on_another_instance,
    a_zombie_is_refused,
    sinks_of_one_target_have_tokens_of_their_own,
    a_target_of_another_flow_is_refused_unless_shared,
    names_are_taken_as_they_are,
    values_are_exact_or_the_type_is_refused,
    a_target_of_another_shape_is_refused,
    a_target_that_is_not_there_is_told,
    closing_is_always_possible,
    weaker_guarantees_leave_the_token_alone,
)
UPSERT_CONTRACTS = (
    the_last_row_of_a_key_wins,
    null_is_a_key_like_any_other,
    keys_differ_by_every_byte,
    a_key_may_be_the_whole_row,
    an_upsert_without_a_key_is_refused,
)
DELETE_CONTRACTS = (deletes_remove_the_key,)


def _large() -> list[dict[str, Any]]:
    """Enough that a sink which stages large epochs natively does so."""
    return [{"id": number, "name": f"{number:064d}"} for number in range(1000, 9000)]


def _by_id(bench: SinkBench) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for row in bench.look()[0]:
        found.setdefault(row["id"], []).append(row["name"])
    return found


def _pair(row: dict[str, Any]) -> tuple[int, str]:
    return row["id"], row["name"]
