"""Records: every byte ends in one record or stays for the next buffer, however the input is cut."""

from __future__ import annotations

import pytest

from onefold.formats.json import JsonLines
from onefold.formats.lines import CUT_MARK, Quoting, split_records
from onefold.formats.schema import to_schema

COMMA = Quoting(b",", b'"')
BACKSLASH = Quoting(b",", b'"', b"\\")


def split(content: bytes, *, is_final: bool = False, quoting: Quoting | None = None):
    records = split_records(content, is_final=is_final, quoting=quoting)
    return records.values.to_pylist(), records.starts.tolist(), records.consumed


@pytest.mark.parametrize(("content", "is_final", "expected"), [
    (b"", True, ([], [], 0)),
    (b"a\nb\n", False, ([b"a", b"b"], [0, 2], 4)),
    (b"a\nb", False, ([b"a"], [0], 2)),
    (b"a\nb", True, ([b"a", b"b"], [0, 2], 3)),
    (b"\n\nx\n", False, ([b"", b"", b"x"], [0, 1, 2], 4)),
    (b"a\r\nb\r\n", False, ([b"a", b"b"], [0, 3], 6)),
    (b"a\r\nb\nc\rd\n", False, ([b"a", b"b", b"c\rd"], [0, 3, 5], 9)),
    (b"a\r", True, ([b"a"], [0], 2)),
    (b"partial", False, ([], [], 0)),
])  # fmt: skip
def test_lines_end_with_lf_or_crlf_and_a_partial_one_waits(content, is_final, expected) -> None:
    assert split(content, is_final=is_final) == expected


@pytest.mark.parametrize(("content", "values"), [
    (b'a,"x\ny"\nb,c\n', [b'a,"x\ny"', b"b,c"]),
    (b'"a""b\n","c"\n"",""\nx\n', [b'"a""b\n","c"', b'"",""', b"x"]),
    (b'a,5" pipe\nb,6" pipe\nc,d\n', [b'a,5" pipe', b'b,6" pipe', b"c,d"]),
    (b'"a"x"\n"b"\n', [b'"a"x"', b'"b"']),
    (b'"a\r\nb"\r\nc\r\n', [b'"a\r\nb"', b"c"]),
    (b'"open\nx\n', []),
    (b'x""y\nz\n', [b'x""y', b"z"]),
])  # fmt: skip
def test_line_ends_inside_quotes_belong_to_the_record(content, values) -> None:
    assert split(content, quoting=COMMA)[0] == values


def test_an_escaped_quote_does_not_close_a_field() -> None:
    assert split(b'"a\\"\nb",c\nd\n', quoting=BACKSLASH)[0] == [b'"a\\"\nb",c', b"d"]


@pytest.mark.parametrize("quoting", [None, COMMA, BACKSLASH])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
def test_the_records_do_not_depend_on_how_the_bytes_arrive(quoting, size) -> None:
    content = b'a,b\r\n"x\ny",""\n\n"q""\n",z\nlast,"one"'
    expected = split(content, is_final=True, quoting=quoting)
    values, starts, start, end = [], [], 0, 0
    while end < len(content):
        end = min(end + size, len(content))
        found = split(content[start:end], is_final=end == len(content), quoting=quoting)
        values += found[0]
        starts += [start + place for place in found[1]]
        start += found[2]
    assert (values, starts, start) == expected


@pytest.mark.parametrize("step", [1, 3000, 20_000, 100_000])
def test_a_record_that_is_too_long_comes_out_in_marked_pieces_however_it_arrives(step) -> None:
    content = b"ok\n" + b"x" * 20_500 + b"\nok\n" + b"y" * 8_001 + b"\n"
    pieces, start = [], 0
    for end in [*range(step, len(content), step), len(content)]:
        found = split_records(content[start:end], is_final=end == len(content), max_record_bytes=8_000)
        pieces += [(start + place, value.as_py()) for place, value in zip(found.starts, found.values, strict=True)]
        start += found.consumed
    assert start == len(content)
    shown = [(place, value[:2], value.endswith(CUT_MARK), len(value)) for place, value in pieces]
    cut = 4096 + len(CUT_MARK)
    assert shown == [
        (0, b"ok", False, 2), (3, b"xx", True, cut), (8003, b"xx", True, cut), (16_003, b"xx", False, 4_500),
        (20_504, b"ok", False, 2), (20_507, b"yy", True, cut), (28_507, b"y", False, 1),
    ]  # fmt: skip


def test_a_cut_record_is_malformed_and_says_why() -> None:
    records = split_records(b" " * 9_000 + b"\n", is_final=True, max_record_bytes=8_000)
    decoded = JsonLines().decode(records.values, to_schema({"v": "BIGINT"}), is_lenient=False)
    assert decoded.misfits.detail[0].as_py() == "the record is too long"
    assert len(decoded.misfits) == 2
