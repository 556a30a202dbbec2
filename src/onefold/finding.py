"""Finding the flow that a command names: `path.py[:name]` or `pkg.mod[:name]`.

Importing the user's module builds the flow and connects to nothing. Without a name it is the only Flow of the module,
or the only function without arguments that is annotated to return one.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypeVar, get_type_hints

from onefold.errors import FlowNotFound, ModuleFailed, OnefoldError
from onefold.flow import Flow

__all__ = ["FoundFlow", "find_flow"]

_Made = TypeVar("_Made")

_PATH = re.compile(r"(.+\.py)(?::([^:/\\]*))?")
_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_MODULE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?::(.*))?")


@dataclass(frozen=True)
class FoundFlow:
    """A flow, the name it has in its module, and the module's file."""

    flow: Flow
    name: str
    file: Path


def find_flow(target: str) -> FoundFlow:
    """Import the module and find the flow. Raises FlowNotFound, ModuleFailed, and what building the flow raises.

    A BuildError gets the file and line of the user's own code in `where`.
    """
    path, module = _PATH.fullmatch(target), _MODULE.fullmatch(target)
    if path is not None:
        file, name = Path(path[1]).absolute(), path[2]
        if not file.is_file():
            raise FlowNotFound(f"There is no file {path[1]}.", expected="path.py[:name] or pkg.mod[:name]")
        loaded = _guarded(target, file, lambda: _load_file(file))
    elif module is not None:
        name = module[2]
        loaded = _load_module(target, module[1])
        file = Path(loaded.__file__ or ".").absolute()
    else:
        raise FlowNotFound(f"{target!r} names no flow.", expected="path.py[:name] or pkg.mod[:name]")
    flow, own = _named(loaded, name, target, file) if name else _only(loaded, target, file)
    return FoundFlow(flow, own, file)


def _load_file(file: Path) -> ModuleType:
    folder = str(file.parent)
    if folder not in sys.path:  # its neighbours can be imported, as when Python runs it
        sys.path.insert(0, folder)
    name = file.stem if file.stem not in sys.modules else f"onefold_flow_{abs(hash(str(file)))}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise FlowNotFound(f"{file} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations and dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_module(target: str, name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        spec = None
    if spec is None or spec.origin is None:
        raise FlowNotFound(
            f"There is no module {name}.",
            expected="path.py[:name] or pkg.mod[:name]",
            next_step="Modules are looked for in the working folder and where packages are installed.",
        )
    return _guarded(target, Path(spec.origin), lambda: importlib.import_module(name))


def _guarded(target: str, file: Path, load: Callable[[], _Made]) -> _Made:
    """Run the user's code; what it raises is told with its own lines only."""
    try:
        return load()
    except OnefoldError as error:
        line = _last_line(error.__traceback__, file)
        if line is not None:
            error.where.update({"file": file, "line": line})
        raise
    except (Exception, SystemExit) as error:
        shown = "".join(traceback.format_exception(type(error), error, _from(error.__traceback__, file))).rstrip()
        raise ModuleFailed(
            f"{target} raised {type(error).__name__} while it was imported.", found="\n" + shown
        ) from error


def _from(trace: TracebackType | None, file: Path) -> TracebackType | None:
    """The traceback from the first frame of the user's file on."""
    own = trace
    while own is not None and Path(own.tb_frame.f_code.co_filename).absolute() != file:
        own = own.tb_next
    return own


def _last_line(trace: TracebackType | None, file: Path) -> int | None:
    lines = [one.lineno for one in traceback.extract_tb(trace) if Path(one.filename).absolute() == file]
    return lines[-1] if lines else None


def _named(module: ModuleType, name: str, target: str, file: Path) -> tuple[Flow, str]:
    found = getattr(module, name, None)
    if isinstance(found, Flow):
        return found, name
    if callable(found) and not isinstance(found, type):
        return _made(found, name, target, file), name
    known = ", ".join([*_flows(module), *(f"{factory}()" for factory in _factories(module))]) or "none"
    raise FlowNotFound(
        f"{file.name} has no flow {name!r}.",
        found=known,
        expected="a Flow, or a function without arguments that returns one",
    )


def _only(module: ModuleType, target: str, file: Path) -> tuple[Flow, str]:
    flows = _flows(module)
    factories = {} if flows else _factories(module)
    names = [*flows, *factories]
    if len(names) > 1:
        raise FlowNotFound(
            f"{file.name} has several flows.",
            found=", ".join(names),
            next_step=f"Name one: {target.removesuffix(':')}:{names[0]}",
        )
    if flows:
        return flows[names[0]], names[0]
    if factories:
        return _made(factories[names[0]], names[0], target, file), names[0]
    raise FlowNotFound(
        f"{file.name} has no flow.",
        expected="a module-level Flow, or a function without arguments annotated with -> Flow",
    )


def _flows(module: ModuleType) -> dict[str, Flow]:
    """Every different Flow of the module under its first name."""
    found: dict[int, tuple[str, Flow]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Flow):
            found.setdefault(id(value), (name, value))
    return dict(found.values())


def _factories(module: ModuleType) -> dict[str, Callable[[], Any]]:
    return {name: value for name, value in vars(module).items() if _is_factory(value, module)}


def _is_factory(value: Any, module: ModuleType) -> bool:
    code = getattr(value, "__code__", None)
    if code is None or getattr(value, "__module__", None) != module.__name__ or "return" not in value.__annotations__:
        return False
    try:
        returns = get_type_hints(value).get("return")
    except NameError:  # an annotation that only type checkers can read
        return False
    return isinstance(returns, type) and issubclass(returns, Flow)


def _made(factory: Callable[[], Any], name: str, target: str, file: Path) -> Flow:
    parameters = inspect.signature(factory).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty and one.kind not in _ANY_NUMBER]
    if needed:
        raise FlowNotFound(
            f"{name}() of {file.name} needs arguments.",
            found=", ".join(needed),
            expected="a function without arguments that returns a Flow",
        )
    flow = _guarded(target, file, factory)
    if isinstance(flow, Flow):
        return flow
    raise FlowNotFound(
        f"{name}() of {file.name} returned no flow.", found=type(flow).__name__, expected="a Flow", next_step=""
    )
