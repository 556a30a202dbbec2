"""Writes the reference pages that follow from the code: `python docs/generate.py`. A tidy test keeps them current."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onefold import errors

REFERENCE = Path(__file__).parent / "reference"

ERRORS_HEAD = """\
# Errors

Every error that onefold raises on purpose has a class in `onefold.errors` and a code that does not change. It says
what is wrong, where (flow, sink, partition, epoch, …), what was found and what was expected, and what to do next.
`onefold … --json` prints the same as an object. Classes are indented below the class they are a kind of, so
`except onefold.errors.SinkError` catches all of a sink's.

_This page is written by `python docs/generate.py`._
"""


def family(parent: type[errors.OnefoldError], depth: int = 0) -> Iterator[tuple[int, type[errors.OnefoldError]]]:
    """A class and all its kinds, in the order in which they are defined, with their depth."""
    yield depth, parent
    for kind in parent.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from family(kind, depth + 1)


def errors_page() -> str:
    """docs/reference/errors.md."""
    tree = list(family(errors.OnefoldError))
    parts = [ERRORS_HEAD]
    parts.append("\n".join(f"{'  ' * depth}- [`{kind.__name__}`](#{kind.code})" for depth, kind in tree) + "\n")
    for _, kind in tree:
        sentence = (kind.__doc__ or "").strip().splitlines()[0]
        again = "yes" if kind.retry_is_safe else "no, not by itself"
        lines = [f"## {kind.code}", "", f"`onefold.errors.{kind.__name__}`. {sentence}", ""]
        lines += [f"- May be run again as it is: {again}."]
        lines += [f"- Next: {kind.next_default}"] if kind.next_default else ["- Next: said by the message itself."]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


PAGES = {REFERENCE / "errors.md": errors_page}

if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), "utf-8")
