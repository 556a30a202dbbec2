"""Everything can be read in one sitting."""

from __future__ import annotations

import ast

from tests.tidy import house

EVERYWHERE = ("src", "spec", "benchmarks", "examples", "tests", "docs")


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def test_no_module_is_longer_than_the_limit() -> None:
    lengths = {module.name: module.text.count("\n") for module in house.modules(*EVERYWHERE)}
    assert {name: lines for name, lines in lengths.items() if lines > house.MODULE_LINES} == {}


def test_a_long_module_is_listed_with_its_reason_and_no_other_is() -> None:
    modules = house.modules("src", "spec")
    long = {module.name for module in modules if module.text.count("\n") > house.MODULE_LINES_USUAL}
    assert long == set(house.LONG_MODULES), "split it, or say in LONG_MODULES (house.py) why it is one"
    assert all(len(reason) > 20 for reason in house.LONG_MODULES.values())


def test_no_function_is_longer_than_the_limit() -> None:
    long = {
        f"{module.name}:{function.lineno} {function.name}": body_lines(function)
        for module in house.modules(*EVERYWHERE)
        for function in house.functions(module)
        if body_lines(function) > house.FUNCTION_LINES
    }
    assert long == {}


def test_no_function_takes_many_positional_parameters() -> None:
    many = {}
    for module in house.modules("src", "spec"):
        for function in house.functions(module):
            names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
            names = names[1:] if names[:1] in (["self"], ["cls"]) else names
            if len(names) > house.POSITIONAL_PARAMETERS:
                many[f"{module.name}:{function.lineno} {function.name}"] = names
    assert many == {}
