"""`onefold init [FOLDER]`: a runnable project, copied from a template."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from onefold.cli.command import Verb, json_option, print_json, results_to

__all__ = ["TEMPLATES", "command"]

TEMPLATES = ("files-to-duckdb",)
_RENAMED = {"gitignore": ".gitignore", "test_flow.py.txt": "test_flow.py"}
"""Files that would mean something here under the name that they have in the project."""


@click.command("init", cls=Verb)
@click.argument("folder", default="revenue")
@click.option(
    "--template", default=TEMPLATES[0], show_default=True, type=click.Choice(TEMPLATES), help="What to begin with."
)
@json_option
def command(folder: str, *, template: str, as_json: bool) -> None:
    """Make a runnable project in FOLDER (revenue, if not given): a flow, its test, and some events. Works offline."""
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise click.UsageError(f"{folder} is there and not empty.")
    made = _copy(resources.files("onefold.cli").joinpath("templates", template), target)
    if as_json:
        print_json({"folder": str(target), "template": template, "files": [str(path) for path in made]})
        return
    out = results_to()
    for path in made:
        out.print(f"  {path}", style="dim")
    out.print(f"Now:\n  cd {folder}\n  onefold run flow.py --once")


def _copy(source: Traversable, target: Path) -> list[Path]:
    target.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    for entry in sorted(source.iterdir(), key=lambda one: one.name):
        path = target / _RENAMED.get(entry.name, entry.name)
        if entry.name == "__pycache__":
            continue
        if entry.is_dir():
            made += _copy(entry, path)
        else:
            path.write_bytes(entry.read_bytes())
            made.append(path)
    return made
