"""FLOW on the command line: path.py[:name] or pkg.mod[:name]."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from onefold.errors import BuildError, FlowNotFound, ModuleFailed
from onefold.finding import find_flow


@pytest.fixture(autouse=True)
def _own_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def written(folder: Path, text: str, name: str = "pipeline_under_test.py") -> Path:
    file = folder / name
    file.write_text("import onefold as of\n" + textwrap.dedent(text), "utf-8")
    return file


def test_the_only_flow_of_a_file_is_found(tmp_path: Path) -> None:
    file = written(tmp_path, "revenue = of.Flow('r')\nalias = revenue\n")
    found = find_flow(str(file))
    assert (found.flow.name, found.name, found.file) == ("r", "revenue", file)


def test_a_named_flow_is_found_among_several(tmp_path: Path) -> None:
    file = written(tmp_path, "a = of.Flow('first')\nb = of.Flow('second')\n")
    assert find_flow(f"{file}:b").flow.name == "second"


def test_several_flows_are_an_error_that_lists_them(tmp_path: Path) -> None:
    file = written(tmp_path, "a = of.Flow('first')\nb = of.Flow('second')\n")
    with pytest.raises(FlowNotFound) as caught:
        find_flow(str(file))
    assert caught.value.found == "a, b"


def test_a_factory_is_called(tmp_path: Path) -> None:
    file = written(tmp_path, "def make() -> of.Flow:\n    return of.Flow('made')\ndef other(): return 1\n")
    assert find_flow(str(file)).flow.name == "made"


def test_an_unannotated_factory_is_called_when_it_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, "def make(): return of.Flow('made')\n")
    assert find_flow(f"{file}:make").flow.name == "made"
    with pytest.raises(FlowNotFound, match="has no flow"):
        find_flow(str(file))


def test_a_factory_that_needs_arguments_is_not_called(tmp_path: Path) -> None:
    file = written(tmp_path, "def make(day) -> of.Flow:\n    return of.Flow('made')\n")
    with pytest.raises(FlowNotFound, match="needs arguments") as caught:
        find_flow(str(file))
    assert caught.value.found == "day"


def test_a_factory_that_returns_something_else_is_an_error(tmp_path: Path) -> None:
    file = written(tmp_path, "def make(): return 1\n")
    with pytest.raises(FlowNotFound, match="returned no flow"):
        find_flow(f"{file}:make")


def test_a_module_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pkg_under_test").mkdir()
    (tmp_path / "pkg_under_test" / "__init__.py").write_text("", "utf-8")
    written(tmp_path / "pkg_under_test", "flow = of.Flow('inside')\n", "mod.py")
    assert find_flow("pkg_under_test.mod").flow.name == "inside"
    assert find_flow("pkg_under_test.mod:flow").flow.name == "inside"


@pytest.mark.parametrize("target", ["no_such_file.py", "no_such_module_x", "onefold.no_such", "a b", "", "x.py:", ":f"])
def test_what_names_nothing_is_an_error(target: str) -> None:
    with pytest.raises(FlowNotFound):
        find_flow(target)


def test_a_wrong_name_lists_what_there_is(tmp_path: Path) -> None:
    file = written(tmp_path, "revenue = of.Flow('r')\ndef make() -> of.Flow: return revenue\n")
    with pytest.raises(FlowNotFound) as caught:
        find_flow(f"{file}:revenu")
    assert caught.value.found == "revenue, make()"


def test_an_error_of_the_module_is_shown_with_its_own_lines_only(tmp_path: Path) -> None:
    file = written(tmp_path, "def broken():\n    return 1 / 0\nbroken()\n")
    with pytest.raises(ModuleFailed) as caught:
        find_flow(str(file))
    text = str(caught.value)
    assert "ZeroDivisionError" in text
    assert "in broken" in text
    assert "finding.py" not in text
    assert "importlib" not in text


def test_a_module_that_exits_or_does_not_parse_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModuleFailed, match="SystemExit"):
        find_flow(str(written(tmp_path, "import sys\nsys.exit(3)\n")))
    with pytest.raises(ModuleFailed, match="SyntaxError"):
        find_flow(str(written(tmp_path, "flow = = 1\n")))


def test_an_error_of_building_says_the_users_line(tmp_path: Path) -> None:
    file = written(tmp_path, "x = 1\nflow = of.Flow('a name with spaces')\n")
    with pytest.raises(BuildError) as caught:
        find_flow(str(file))
    assert not isinstance(caught.value, FlowNotFound)
    assert (caught.value.where["file"], caught.value.where["line"]) == (file, 3)


def test_neighbours_of_the_file_can_be_imported(tmp_path: Path) -> None:
    written(tmp_path, "flow = of.Flow('shared')\n", "neighbour_under_test.py")
    file = written(tmp_path, "from neighbour_under_test import flow\n")
    assert find_flow(str(file)).flow.name == "shared"


def test_a_file_named_like_a_loaded_module_does_not_replace_it(tmp_path: Path) -> None:
    import json

    file = written(tmp_path, "flow = of.Flow('mine')\n", "json.py")
    assert find_flow(str(file)).flow.name == "mine"
    assert sys.modules["json"] is json
