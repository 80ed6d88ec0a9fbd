"""The client's HTTP and WebSocket, against what the daemon's parts make and read."""

from __future__ import annotations

import json
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

from sublet.domain.errors import DaemonUnavailable, SubletError
from sublet.sdk._http import Lines, Response, query_of, quote, request
from sublet.sdk._websocket import Dialogue, Reply, frame


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def answer(body: list[bytes], *, status: int = 200, length: int | None = None) -> bytes:
    """What h11, as the daemon uses it, makes of a response."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(request("GET", "/v1/host"))
    while server.next_event() is not h11.NEED_DATA and server.their_state is not h11.DONE:
        pass
    headers = [] if length is None else [("Content-Length", str(length))]
    sent = server.send(h11.Response(status_code=status, headers=headers)) or b""
    for piece in body:
        sent += server.send(h11.Data(data=piece)) or b""
    return sent + (server.send(h11.EndOfMessage()) or b"")


@given(st.lists(st.binary(max_size=200), max_size=5), st.booleans(), st.integers(1, 300))
def test_a_response_in_whatever_pieces(body: list[bytes], counted: bool, size: int) -> None:
    whole = b"".join(body)
    data = answer(body, length=len(whole) if counted else None)
    response = Response()
    got = b"".join(piece for part in in_pieces(data, size) for piece in response.feed(part))
    assert (response.status, response.done, got) == (200, True, whole)


def test_a_response_without_a_body() -> None:
    response = Response()
    assert list(response.feed(answer([], status=204))) == []
    assert (response.status, response.done, response.failed) == (204, True, False)


def test_a_body_that_lasts_until_the_end() -> None:
    response = Response()
    assert list(response.feed(b"HTTP/1.1 500 Oops\r\n\r\nab")) == [b"ab"]
    assert not response.done
    assert list(response.feed(b"")) == []
    assert response.done
    assert response.failed


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
def test_a_response_that_ends_too_early(data: bytes) -> None:
    response = Response()
    for piece in response.feed(data) if data else ():
        assert piece == b"abc"
    with pytest.raises(DaemonUnavailable):
        list(response.feed(b""))


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"HTTP/1.1 x y\r\n\r\n", b"x" * 70000])
def test_what_is_no_response(data: bytes) -> None:
    with pytest.raises(DaemonUnavailable):
        list(Response().feed(data))


def test_a_request_as_the_daemon_reads_it() -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(request("POST", "/v1/instances", {"image": "ä"}))
    head, body = server.next_event(), server.next_event()
    assert isinstance(head, h11.Request)
    assert isinstance(body, h11.Data)
    assert (head.method, head.target) == (b"POST", b"/v1/instances")
    assert json.loads(body.data) == {"image": "ä"}


def test_targets() -> None:
    assert quote("web-1_a") == "web-1_a"
    assert quote("a/b c") == "a%2Fb%20c"
    assert query_of({}) == query_of({"since": None}) == ""
    assert query_of({"all": True, "name": "a b", "since": None}) == "?all=true&name=a+b"


def test_lines() -> None:
    lines = Lines()
    assert list(lines.feed(b'{"a": 1}\n{"b"')) == [{"a": 1}]
    assert list(lines.feed(b": 2}\n")) == [{"b": 2}]


class Daemon:
    """The daemon's end of a conversation: wsproto, as uvicorn uses it."""

    def __init__(self) -> None:
        self.ws = WSConnection(ConnectionType.SERVER)
        self.client = Dialogue()
        self.said: list[Any] = []
        self.ws.receive_data(self.client.open("/v1/run", {"image": "a"}))
        assert isinstance(next(self.events()), Request)

    def events(self) -> Any:
        return self.ws.events()

    def tell(self, *events: Any, size: int = 1 << 20) -> list[Any]:
        """Send the events; the messages that the client makes of them, its replies answered."""
        data = b"".join(self.ws.send(event) for event in events)
        found: list[Any] = []
        for part in in_pieces(data, size):
            for message in self.client.feed(part):
                if isinstance(message, Reply):
                    self.ws.receive_data(message)
                else:
                    found.append(message)
        return found

    def heard(self, data: bytes) -> list[Any]:
        self.ws.receive_data(data)
        return list(self.events())


def test_the_request_follows_the_acceptance() -> None:
    daemon = Daemon()
    assert daemon.tell(AcceptConnection()) == []
    (first,) = daemon.events()
    assert isinstance(first, TextMessage)
    assert json.loads(first.data) == {"image": "a"}


@given(st.binary(max_size=70000), st.integers(1, 5000))
def test_messages_in_both_directions(data: bytes, size: int) -> None:
    daemon = Daemon()
    daemon.tell(AcceptConnection())
    list(daemon.events())
    messages: list[Message[Any]] = [TextMessage(data='{"type": "exit"}'), BytesMessage(data=data)]
    assert daemon.tell(*messages, size=size) == [{"type": "exit"}, data]
    heard = daemon.heard(daemon.client.binary(data) + daemon.client.text(type="resize"))
    kinds = {type(event) for event in heard}
    assert b"".join(e.data for e in heard if isinstance(e, BytesMessage)) == data
    assert TextMessage in kinds


def test_a_message_in_parts() -> None:
    daemon = Daemon()
    parts = [
        BytesMessage(data=b"a", message_finished=False),
        Ping(payload=b"?"),
        BytesMessage(b"b"),
    ]
    assert daemon.tell(AcceptConnection(), *parts) == [b"ab"]
    assert [event for event in daemon.events() if isinstance(event, Pong)] == [Pong(payload=b"?")]


def test_the_end() -> None:
    daemon = Daemon()
    assert daemon.tell(AcceptConnection(), CloseConnection(code=1000)) == []
    assert daemon.client.closed
    assert daemon.client.close() == b""
    daemon = Daemon()
    daemon.tell(AcceptConnection())
    list(daemon.events())
    assert isinstance(daemon.heard(daemon.client.close())[0], CloseConnection)
    with pytest.raises(DaemonUnavailable):
        list(daemon.client.feed(b""))


def test_a_refusal() -> None:
    body = json.dumps(SubletError("No.", hint="Ask again.").to_dict()).encode()
    refusal = [RejectConnection(status_code=500, has_body=True), RejectData(data=body)]
    daemon = Daemon()
    (message,) = daemon.tell(*refusal)
    assert message["error"]["message"] == "No."
    assert daemon.client.closed


def test_a_long_frame() -> None:
    assert frame(2, b"x" * 70000)[:10] == b"\x82\xff" + (70000).to_bytes(8, "big")
