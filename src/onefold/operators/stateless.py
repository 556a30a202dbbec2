"""Stateless operators. Adjacent where and select fuse into one query an epoch; map, explode and union stand alone."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from onefold.errors import ExtraMissing, UserCodeError
from onefold.operators.sql import Sql, identifier, identifiers
from onefold.plan import OP_COLUMN, ExplodeNode, MapNode, SelectNode, WhereNode

__all__ = ["explode", "fused_query", "run_map"]


_PANDAS_TYPES = {
    pa.bool_(): "BooleanDtype",
    pa.int8(): "Int8Dtype",
    pa.int16(): "Int16Dtype",
    pa.int32(): "Int32Dtype",
    pa.int64(): "Int64Dtype",
    pa.uint8(): "UInt8Dtype",
    pa.uint16(): "UInt16Dtype",
    pa.uint32(): "UInt32Dtype",
    pa.uint64(): "UInt64Dtype",
}


def fused_query(nodes: Sequence[WhereNode | SelectNode]) -> str:
    """One query over the table `input` for a chain of nodes, in order."""
    query = "input"
    for node in nodes:
        source = query if query == "input" else f"({query})"
        if isinstance(node, WhereNode):
            query = f"SELECT {_kept(node)} FROM {source} WHERE {node.predicate}"
        else:
            columns = ", ".join(f"{sql} AS {identifier(name)}" for name, sql in node.columns.items())
            query = f"SELECT {columns} FROM {source}"
    return query


def _kept(node: WhereNode) -> str:
    """All columns; of changes that make a copy, with deletes of the rows that are not, or no longer, to be in it."""
    if not node.stays:
        return "*"
    op = identifier(OP_COLUMN)
    stays = f"{op} IS DISTINCT FROM 'delete' AND ({node.stays})"
    return f"* REPLACE (CASE WHEN {stays} THEN {op} ELSE 'delete' END AS {op})"


def run_fused(sql: Sql, nodes: Sequence[WhereNode | SelectNode], rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Runs the chain, for these columns of its last node. Input order is kept."""
    schema = pa.schema([nodes[-1].schema.field(name) for name in columns])
    if rows.num_rows == 0:
        return schema.empty_table()
    query = f"SELECT {identifiers(columns)} FROM ({fused_query(nodes)})"
    names, expressions = [node.name for node in nodes], [text for node in nodes for text in _expressions(node)]
    return sql.run(query, {"input": rows}, schema, node="+".join(names), expressions=expressions)


def _expressions(node: WhereNode | SelectNode) -> list[str]:
    """What was written, but for columns that only pass through."""
    if isinstance(node, WhereNode):
        return [node.predicate]
    return [f"{name}={sql}" for name, sql in node.columns.items() if sql not in (name, identifier(name))]


def explode(node: ExplodeNode, rows: pa.Table) -> pa.Table:
    """One row per element of the list column; order kept."""
    column = rows.column(node.column).combine_chunks()
    values = pc.list_flatten(column)
    parents = pc.list_parent_indices(column)
    if node.keep_empty:
        empty = pc.or_(column.is_null(), pc.equal(pc.fill_null(pc.list_value_length(column), 0), 0))
        extra = pc.indices_nonzero(empty)
        parents = pa.concat_arrays([parents.cast(pa.int64()), extra.cast(pa.int64())])
        values = pa.concat_arrays([values, pa.nulls(len(extra), values.type)])
        order = pc.sort_indices(parents)  # stable: elements keep their order
        parents, values = parents.take(order), values.take(order)
    out = rows.take(parents)
    return out.set_column(out.schema.get_field_index(node.column), node.schema.field(node.column), values).cast(
        node.schema
    )


def run_map(node: MapNode, rows: pa.Table) -> pa.Table:
    """Call the user's function. Raises UserCodeError when it raises or breaks its schema, ExtraMissing."""
    if rows.num_rows == 0:
        return node.schema.empty_table()
    offered = _offer(node, rows)
    try:
        result = node.function(offered)
    except Exception as error:
        raise UserCodeError(
            f"The function of map `{node.name}` raised {type(error).__name__}: {error}",
            node=node.name,
            **_line_of(node.function, error),
            next_step="Correct the function; nothing of this epoch was written.",
        ) from error
    return _take_back(node, result)


def _line_of(function: Callable[..., Any], error: Exception) -> dict[str, object]:
    """The line of the user's file that raised, else the one where the function begins."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return {}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == code.co_filename]
    return {"file": code.co_filename, "line": frames[-1].lineno if frames else code.co_firstlineno}


def _offer(node: MapNode, rows: pa.Table) -> Any:
    if node.batch == "arrow":
        return rows
    try:
        library = importlib.import_module(node.batch)
    except ImportError:
        raise ExtraMissing(
            f"batch='{node.batch}' needs {node.batch}.", node=node.name, next_step=f"pip install {node.batch}"
        ) from None
    if node.batch == "polars":
        return library.from_arrow(rows)
    return rows.to_pandas(date_as_object=False, types_mapper=partial(_exact_type, library))


def _exact_type(pandas: Any, kind: pa.DataType) -> Any:
    """pandas' own type that holds NULLs: beside one, numpy has integers as floats, which are others from 2^53 on."""
    if pa.types.is_nested(kind):
        return pandas.ArrowDtype(kind)
    name = _PANDAS_TYPES.get(kind)
    return getattr(pandas, name)() if name else None


def _take_back(node: MapNode, result: Any) -> pa.Table:
    if hasattr(result, "to_arrow"):
        table = result.to_arrow()
    elif isinstance(result, pa.RecordBatch):
        table = pa.Table.from_batches([result])
    elif isinstance(result, pa.Table):
        table = result
    else:
        table = pa.Table.from_pandas(result, preserve_index=False) if hasattr(result, "columns") else None
    expected = node.schema
    if table is None or sorted(table.schema.names) != sorted(expected.names):
        found = type(result).__name__ if table is None else table.schema.names
        raise UserCodeError(
            f"The function of map `{node.name}` returned other columns.",
            node=node.name,
            found=found,
            expected=expected.names,
        )
    try:
        return table.select(expected.names).cast(expected)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserCodeError(
            f"The function of map `{node.name}` returned values that do not fit its schema.",
            node=node.name,
            found=str(error),
        ) from error
