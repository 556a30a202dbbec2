"""${NAME} in the texts of a flow: shown as written, read when the flow runs, never logged.

Values come from the environment, and from files loaded with `load_env_file`; the environment wins. `$${` stands for
the text `${`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from onefold.errors import BuildError, SettingMissing

__all__ = ["load_env_file", "names_in", "resolve", "show"]

_REFERENCE = re.compile(r"\$(\$\{|\{([^{}]*)(\}|$))")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}

_from_files: dict[str, str] = {}


def resolve(text: str, *, used_in: str | None = None) -> str:
    """The text with every ${NAME} replaced by its value. Values are not looked into again.

    used_in: where the text stands, for the error. Raises SettingMissing, BuildError for `${` without a name.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] == "${":
            return "${"
        name = _checked_name(match, text, used_in)
        found = os.environ.get(name, _from_files.get(name))
        if found is None:
            raise SettingMissing(f"The setting {name} has no value.", setting=name, used_in=used_in or show(text))
        return found

    return _REFERENCE.sub(value, text)


def show(text: str) -> str:
    """The text as it may be shown to people: references stay references.

    >>> show("postgres://${PG_USER}:${PG_PASSWORD}@db/$${x}")
    'postgres://${PG_USER}:${PG_PASSWORD}@db/${x}'
    """
    return text.replace("$${", "${")


def names_in(text: str) -> tuple[str, ...]:
    """The settings that a text refers to, in order.

    >>> names_in("${LAKE}/payments/${DAY}/$${LAKE}")
    ('LAKE', 'DAY')
    """
    found = [_checked_name(match, text, None) for match in _REFERENCE.finditer(text) if match[1] != "${"]
    return tuple(dict.fromkeys(found))


def load_env_file(path: str | Path) -> tuple[str, ...]:
    """Read KEY=VALUE lines for `resolve`; gives the names, never the values.

    Comments start with # (after a value: with a space before it); values may stand in single quotes (taken as they
    are) or double quotes (with \\n, \\t, \\", \\\\ and \\$). `export ` before a name is allowed. Nothing is loaded
    when a line is wrong. Raises BuildError, naming the file and the line but not its text.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise BuildError("The file with settings cannot be read.", file=path, found=reason) from None
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            match = _LINE.fullmatch(stripped)
            value = _value(match[2]) if match else None
            if match is None or value is None:
                raise BuildError("A line is not KEY=VALUE.", file=path, line=number)
            values[match[1]] = value
    _from_files.update(values)
    return tuple(values)


def forget_env_files() -> None:
    """Undo every `load_env_file`."""
    _from_files.clear()


def _checked_name(match: re.Match[str], text: str, used_in: str | None) -> str:
    if match[3] != "}" or not _NAME.fullmatch(match[2]):
        raise BuildError(
            "A ${ is not followed by a name and }.",
            found=show(text),
            expected="${NAME}, or $${ for the text ${",
            used_in=used_in,
        )
    return match[2]


def _value(written: str) -> str | None:
    if written[:1] == "'":
        end = written.find("'", 1)
        return written[1:end] if end > 0 and _is_rest_empty(written[end + 1 :]) else None
    if written[:1] == '"':
        match = re.match(r'"((?:[^"\\]|\\.)*)"', written)
        if match is None or not _is_rest_empty(written[match.end() :]):
            return None
        return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), match[1])
    return re.split(r"(?:^|\s)#", written, maxsplit=1)[0].strip()


def _is_rest_empty(rest: str) -> bool:
    return not rest.strip() or (rest.lstrip() != rest and rest.lstrip().startswith("#"))
