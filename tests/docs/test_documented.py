"""Every command, option, exit code, connector and setting has its place in the reference."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import onefold
from onefold.cli.exits import Exit
from onefold.cli.group import VERBS, main
from onefold.plan import Settings

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text("utf-8")


def commands() -> Iterator[tuple[str, click.Command]]:
    for verb in VERBS:
        command = main.get_command(click.Context(main), verb)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{verb} {name}", inner) for name, inner in command.commands.items())
        else:
            yield verb, command


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda value: str(value))
def test_a_command_is_documented_with_all_its_options(name: str, command: click.Command) -> None:
    text = page("cli.md")
    begin = text.index(f"\n## onefold {name}\n")
    section = text[begin : text.find("\n## ", begin + 4)]
    for option in command.params:
        for spelling in option.opts if isinstance(option, click.Option) else ():
            assert f"`{spelling}" in section
    assert command.help
    assert "\n\n" in command.help or len(command.help) < 200


def test_every_exit_code_is_documented() -> None:
    for code in Exit:
        assert f"| {int(code)} |" in page("cli.md")


@pytest.mark.parametrize("setting", [field.name for field in dataclasses.fields(Settings)])
def test_a_setting_is_documented(setting: str) -> None:
    assert f"| `{setting}` |" in page("settings.md")


@pytest.mark.parametrize("variable", ["ONEFOLD_STATE"])
def test_an_environment_variable_is_documented(variable: str) -> None:
    assert f"`{variable}`" in page("settings.md")


def test_no_other_variable_is_read() -> None:
    package = Path(onefold.__file__).parent
    read = {
        name
        for path in package.rglob("*.py")
        if path.parent.name != "testing"  # the crash harness talks to its own children
        for name in re.findall(r"environ(?:\.get\(|\[)[\"'](ONEFOLD_\w+)", path.read_text("utf-8"))
    }
    assert read == {"ONEFOLD_STATE"}


@pytest.mark.parametrize("connection", sorted(onefold._CONNECTIONS))
def test_a_connector_is_documented_with_all_its_parameters(connection: str) -> None:
    text = page("connectors.md")
    begin = text.index(f"\n## of.{connection}")
    section = text[begin : text.find("\n## ", begin + 4)]
    made = getattr(onefold, connection)
    code = getattr(made, "__code__", None) or made.__init__.__code__
    names = [name for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if name != "self"]
    for name in names:
        assert f"`{name}`" in section or f"`{name}=" in section
    for method in ("table",):
        if hasattr(made, method):
            assert f"`{method}(" in section or f".{method}(" in section


@pytest.mark.parametrize("name", sorted(onefold._FORMATS))
def test_a_format_is_documented_with_all_its_parameters(name: str) -> None:
    text = page("formats.md")
    begin = text.index("\n## of.schema_registry")
    begin = begin if name == "schema_registry" else text.index(f"\n## of.{name}\n")
    shared = text[text.index("The formats below share:") : text.index("\n## of.avro")]
    section = text[begin : text.find("\n## ", begin + 4)] + shared
    made = getattr(onefold, name)
    code = getattr(made, "__code__", None) or made.__init__.__code__
    for parameter in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        assert parameter == "self" or f"`{parameter}`" in section


def test_every_how_to_page_is_listed() -> None:
    listed = (REFERENCE.parent / "README.md").read_text("utf-8")
    for folder in ("tutorials", "how-to", "reference", "explanation"):
        for path in (REFERENCE.parent / folder).glob("*.md"):
            assert f"({folder}/{path.name})" in listed


def test_the_module_of_every_verb_exists() -> None:
    for module, _ in VERBS.values():
        assert isinstance(importlib.import_module(f"onefold.cli.{module}").command, click.Command)


def test_the_options_of_a_kafka_connection_are_all_documented_and_no_others() -> None:
    from onefold.connectors.kafka.connection import FREE_OPTIONS

    text = (REFERENCE.parent / "how-to" / "secured-kafka.md").read_text("utf-8")
    table = text[text.index("\n## Options\n") :]
    first_cells = " ".join(re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE))
    assert sorted(re.findall(r"`([^`]+)`", first_cells)) == sorted(FREE_OPTIONS)
