"""The connection to a schema registry: what may be set, what is shown, what is kept, and framing."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onefold as of
from onefold.errors import BuildError, NotSupported, SchemaError, SettingMissing, SourceUnavailable
from onefold.formats import format_named
from onefold.formats.framing import framed, trimmed, unframed
from onefold.formats.rows import Refusals
from tests.unit.registry_fake import fake_registry

SECRET = "hunter2"


def test_secrets_are_settings_and_show_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = of.schema_registry(
        "http://${HOST}", username="me", password="${PASS}", options={"bearer.auth.token": "${PASS}"}
    )
    with pytest.raises(SettingMissing):
        registry._settings()
    monkeypatch.setenv("HOST", "localhost:1")
    monkeypatch.setenv("PASS", SECRET)
    settings = registry._settings()
    assert (settings["url"], settings["basic.auth.user.info"]) == ("http://localhost:1", f"me:{SECRET}")
    shown = f"{registry!r} {registry.label} {of.avro(registry)!r} {of.avro(registry).name}"
    assert SECRET not in shown
    assert "PASS" not in shown


def test_no_error_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASS", SECRET)
    options = {"max.retries": "0", "timeout": "0.5"}
    registry = of.schema_registry("http://127.0.0.1:1", username=SECRET, password="${PASS}", options=options)
    with pytest.raises(SourceUnavailable) as told:
        registry.by_id(1, "AVRO")
    text = str(told.value) + repr(told.value.__cause__) + str(told.value.as_json())
    assert SECRET not in text


@pytest.mark.parametrize("url", ["http://me:secret@localhost", "http://a:1,https://me@b:2"])
def test_an_address_holds_no_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildError, match="must not hold"):
        of.schema_registry(url)
    monkeypatch.setenv("URL", url)
    with pytest.raises(BuildError, match="must not hold") as told:
        of.avro("${URL}").infer_schema(["t"])
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("option", ["ssl.ca.location", "url", "basic.auth.user.info", "verify", "time out"])
def test_only_listed_options_are_taken(option: str) -> None:
    with pytest.raises(BuildError, match="no option"):
        of.schema_registry("http://localhost", options={option: "x"})


def test_what_cannot_be_is_refused_when_the_flow_is_built() -> None:
    with pytest.raises(BuildError, match="Which schema registry"):
        of.avro("")
    with pytest.raises(BuildError, match="no schema registry"):
        of.avro(5)  # type: ignore[arg-type]
    with pytest.raises(BuildError, match="belong together"):
        of.schema_registry("http://localhost", username="me")
    with pytest.raises(BuildError, match="is a number"):
        of.schema_registry("http://localhost", options={"timeout": "soon"}).by_id(1, "AVRO")
    with pytest.raises(BuildError, match="needs a schema registry"):
        format_named("avro")
    with pytest.raises(NotSupported, match="cannot be written as csv"):
        of.kafka("localhost:1").topic("t", format="csv").as_sink("append", ())


def test_a_subject_of_another_kind_is_refused() -> None:
    registry, client = fake_registry()
    from confluent_kafka.schema_registry import Schema

    client.register_schema("t-value", Schema('{"type": "object"}', "JSON"))
    with pytest.raises(SchemaError, match="another kind"):
        of.avro(registry).infer_schema(["t"])
    found = of.avro(registry).decode(pa.array([b"\0\0\0\0\1x"]), pa.schema([("a", pa.int32())]), is_lenient=False)
    assert found.misfits.reason.to_pylist() == ["unknown-schema"]


def test_doctor_is_told_whether_the_registry_answers() -> None:
    registry, client = fake_registry()
    assert [finding.status for finding in of.avro(registry).check(None)] == ["ok"]
    (other,) = of.protobuf(registry).check(None)
    assert (other.status, other.found) == ("failed", "it keeps AVRO, JSON")
    client.failure = OSError("refused")
    (down,) = of.avro(registry).check(None)
    assert (down.status, "does not answer" in down.found) == ("failed", True)
    (unset,) = of.avro("${NO_SUCH_REGISTRY}").check(None)
    assert "NO_SUCH_REGISTRY" in unset.found


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=12)) | st.binary(max_size=9), max_size=40),
    st.integers(0, 3),
)
def test_frames_come_back(parts: list[tuple[int, bytes] | bytes], skipped: int) -> None:
    whole = [part if isinstance(part, bytes) else b"\0" + part[0].to_bytes(4, "big") + part[1] for part in parts]
    payload = pa.array([*[b"skipped"] * skipped, *whole], pa.large_binary()).slice(skipped)
    refusals = Refusals()
    found = {
        row: (group.schema_id, body)
        for group in unframed(payload, refusals)
        for row, body in zip(group.index.tolist(), group.bodies.to_pylist(), strict=True)
    }
    expected = {
        row: (int.from_bytes(value[1:5], "big"), value[5:])
        for row, value in enumerate(whole)
        if len(value) >= 5 and value[0] == 0
    }
    assert found == expected
    assert set(refusals.misfits().index.to_pylist()) == set(range(len(whole))) - set(expected)


@given(st.lists(st.binary(min_size=3, max_size=9), max_size=20), st.integers(0, 2))
def test_ends_are_cut_off(values: list[bytes], first: int) -> None:
    array = pa.array(values, pa.large_binary()).slice(min(first, len(values)))
    assert trimmed(array, 2, 1).to_pylist() == [value[2:-1] for value in array.to_pylist()]


def test_nothing_stays_nothing() -> None:
    assert framed(7, pa.array([b"x", None], pa.large_binary())).to_pylist() == [b"\0\0\0\0\7x", None]
