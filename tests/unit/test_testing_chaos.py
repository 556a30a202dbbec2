"""The chaos proxy does what it is told, to that message and no other."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from onefold.testing.chaos import Fault, KafkaFramer, Message, Proxy, faults_of, text_of

END_TXN, PRODUCE, FETCH = 26, 0, 1
PATIENCE_SECONDS = 10.0


def request(key: int, correlation: int, body: bytes = b"") -> bytes:
    return struct.pack(">ihhi", 8 + len(body), key, 1, correlation) + body


def answer(correlation: int, body: bytes = b"") -> bytes:
    return struct.pack(">ii", 4 + len(body), correlation) + body


class Answering:
    """A server that notes every request and answers with its correlation id."""

    def __init__(self) -> None:
        self.noted: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        framer = KafkaFramer()
        try:
            while received := connection.recv(1 << 16):
                for message in framer.cut("request", received):
                    self.noted.append(message.body[12:])
                    connection.sendall(answer(struct.unpack_from(">i", message.body, 8)[0]))
        except OSError:
            return

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def server() -> Iterator[Answering]:
    started = Answering()
    yield started
    started.close()


@pytest.fixture
def proxy(server: Answering) -> Iterator[Proxy]:
    with Proxy(server.port, KafkaFramer) as started:
        yield started


def connect(proxy: Proxy) -> socket.socket:
    host, _, port = proxy.address.partition(":")
    return socket.create_connection((host, int(port)), PATIENCE_SECONDS)


def ask(client: socket.socket, key: int, body: bytes = b"", correlation: int = 1) -> bytes:
    client.sendall(request(key, correlation, body))
    return client.recv(1 << 16)


TEXTS = [
    "drop answer EndTxn#2",
    "cut request Produce#1 and close answer Produce#3",
    "hold request EndTxn#1 until answer InitProducerId#2",
    "strand request EndTxn#1",
    "delay answer Fetch#1 for 0.5s",
]


@pytest.mark.parametrize("text", TEXTS)
def test_faults_are_their_text(text: str) -> None:
    assert text_of(faults_of(text)) == text


@pytest.mark.parametrize("text", ["drop", "drop EndTxn#1", "drop request EndTxn", "drop answer EndTxn#1 until"])
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no fault"):
        Fault.parse(text)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_kafka_messages_are_cut_wherever_the_bytes_are(size: int) -> None:
    framer = KafkaFramer()
    sent = [request(END_TXN, 7, b"x" * 20), request(PRODUCE, 8), request(99, 9)]
    whole = b"".join(sent)
    found = [m for at in range(0, len(whole), size) for m in framer.cut("request", whole[at : at + size])]
    assert found == [Message(kind, body) for kind, body in zip(["EndTxn", "Produce", "api99"], sent, strict=True)]
    kinds = [m.kind for m in framer.cut("answer", answer(8) + answer(7) + answer(7))]
    assert kinds == ["Produce", "EndTxn", "unasked"]


def test_what_no_fault_names_passes(proxy: Proxy, server: Answering) -> None:
    with connect(proxy) as client:
        assert ask(client, END_TXN, b"a", 5) == answer(5)
    assert server.noted == [b"a"]
    assert proxy.seen == {"request EndTxn": 1, "answer EndTxn": 1}


def test_bytes_without_a_framer_pass_too(server: Answering) -> None:
    with Proxy(server.port) as proxy, connect(proxy) as client:
        assert ask(client, FETCH, b"a", 5) == answer(5)
        assert proxy.seen["request bytes"] == 1


def test_a_dropped_request_is_the_only_one_missing(proxy: Proxy, server: Answering) -> None:
    proxy.order(faults_of("drop request EndTxn#2"))
    with connect(proxy) as client:
        assert ask(client, END_TXN, b"a", 1) == answer(1)
        client.sendall(request(END_TXN, 2, b"b"))
        assert ask(client, END_TXN, b"c", 3) == answer(3)
    assert server.noted == [b"a", b"c"]
    assert proxy.met == ["drop request EndTxn#2"]


def test_a_dropped_answer_took_effect(proxy: Proxy, server: Answering) -> None:
    proxy.order(faults_of("drop answer EndTxn#1"))
    with connect(proxy) as client:
        client.sendall(request(END_TXN, 1, b"a"))
        assert ask(client, END_TXN, b"b", 2) == answer(2)
    assert server.noted == [b"a", b"b"]


@pytest.mark.parametrize(("side", "noted"), [("request", []), ("answer", [b"a"])])
def test_a_cut_is_a_reset_before_the_message_passes(
    side: str, noted: list[bytes], proxy: Proxy, server: Answering
) -> None:
    proxy.order(faults_of(f"cut {side} EndTxn#1"))
    with connect(proxy) as client, pytest.raises(ConnectionResetError):
        ask(client, END_TXN, b"a")
    assert server.noted == noted


def test_a_close_is_an_orderly_end(proxy: Proxy) -> None:
    proxy.order(faults_of("close answer EndTxn#1"))
    with connect(proxy) as client:
        assert ask(client, END_TXN) == b""


def test_a_held_request_arrives_before_the_message_that_it_waits_for(proxy: Proxy, server: Answering) -> None:
    proxy.order(faults_of("hold request EndTxn#1 until request Produce#2"))
    with connect(proxy) as first, connect(proxy) as second:
        first.sendall(request(END_TXN, 1, b"late"))
        assert ask(second, PRODUCE, b"a", 1) == answer(1)
        assert server.noted == [b"a"]
        assert ask(second, PRODUCE, b"b", 2) == answer(2)
        assert first.recv(100) == answer(1)
    assert server.noted == [b"a", b"late", b"b"]


def test_a_held_request_outlives_a_client_that_gave_up(proxy: Proxy, server: Answering) -> None:
    proxy.order(faults_of("hold request EndTxn#1"))
    with connect(proxy) as client:
        client.sendall(request(END_TXN, 1, b"late"))
        with connect(proxy) as second:
            ask(second, FETCH)
    proxy.release()
    assert server.noted == [b"", b"late"]


def test_a_stranded_request_arrives_although_its_client_was_reset(proxy: Proxy, server: Answering) -> None:
    proxy.order(faults_of("strand request EndTxn#1 until request Produce#1"))
    with connect(proxy) as client, pytest.raises(ConnectionResetError):
        ask(client, END_TXN, b"late")
    assert server.noted == []
    with connect(proxy) as client:
        ask(client, PRODUCE, b"a")
    assert server.noted == [b"late", b"a"]


def test_a_delayed_answer_comes(proxy: Proxy) -> None:
    proxy.order(faults_of("delay answer EndTxn#1 for 0.05s"))
    with connect(proxy) as client:
        assert ask(client, END_TXN, b"a", 5) == answer(5)


def test_an_order_begins_anew(proxy: Proxy, server: Answering) -> None:
    proxy.order(faults_of("hold request EndTxn#1"))
    with connect(proxy) as client:
        client.sendall(request(END_TXN, 1, b"never"))
        with connect(proxy) as second:
            ask(second, FETCH, b"a")
        proxy.order(())
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert proxy.seen == {}
    with connect(proxy) as client:
        ask(client, END_TXN, b"b")
    assert server.noted == [b"a", b"b"]


def test_a_server_that_is_down_is_down_through_the_proxy(server: Answering) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        reset = pytest.raises(ConnectionResetError)
        with Proxy(nobody.getsockname()[1], KafkaFramer) as proxy, reset, connect(proxy) as client:
            client.recv(1)
