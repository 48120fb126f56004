"""The address of the database: what is accepted, what is made of it, and that no password ever shows."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError, InputError, LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import mcu_registry
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mcu_registry import McuRegistry

OPTIONS = {
    "mongodb_uri": "mongodb://127.0.0.1:27017",
    "mongodb_database": "trailcurrent",
    "mongodb_timeout": 0.3,
    "container": None,
}


@pytest.mark.parametrize(
    ("uri", "address", "expected"),
    [
        ("mongodb://127.0.0.1:27017", "172.18.0.3", "mongodb://172.18.0.3:27017"),
        ("mongodb://localhost", "172.18.0.3", "mongodb://172.18.0.3:27017"),
        ("mongodb://localhost/", "172.18.0.3", "mongodb://172.18.0.3:27017/"),
        ("mongodb://u:p%40s@localhost:27018/db?authSource=admin", "10.0.0.2", None),
        ("mongodb://[::1]:27018/?appName=a", "10.0.0.2", "mongodb://10.0.0.2:27018/?appName=a"),
        ("mongodb://localhost", "fd00::2", "mongodb://[fd00::2]:27017"),
    ],
)
def test_container_takes_the_hosts_place_and_nothing_else_changes(uri: str, address: str, expected: str | None) -> None:
    assert mcu_registry.at_address(uri, address) == (expected or "mongodb://u:p%40s@10.0.0.2:27018/db?authSource=admin")


def test_container_is_asked_for_only_where_one_is_given() -> None:
    asked: list[str] = []

    def address_of(name: str) -> str:
        asked.append(name)
        return "127.0.0.1"

    mcu_registry.open_registry(OPTIONS, address_of)
    assert asked == []
    mcu_registry.open_registry({**OPTIONS, "container": "mongodb"}, address_of)
    assert asked == ["mongodb"]


UNUSABLE = [
    "",
    "127.0.0.1",
    "http://owner:hunter2@host",
    "mongodb+srv://owner:hunter2@host.example",
    "mongodb://",
    "mongodb://owner:hunter2@",
    "mongodb://owner:hun:hunter2@host",
    "mongodb://owner:hunter2@host:port",
    "mongodb://owner:hunter2/@host",
    "mongodb://owner:hunter2%@host",
    "mongodb://owner:hunter2@host:99999",
    "mongodb://owner:hunter2@[::1",
    "mongodb://owner:hunter2@host/?retryWrites=true&&x",
    "mongodb://owner:hunter2@host/a b?tls=true&ssl=false",
]


@pytest.mark.parametrize("uri", UNUSABLE)
def test_unusable_address_is_explained_without_its_password(uri: str) -> None:
    with pytest.raises(InputError) as caught, McuRegistry(uri, "trailcurrent", timeout=1):
        pass
    assert caught.value.code == "invalid_option"
    _assert_silent(caught.value)


@pytest.mark.parametrize("uri", ["mongodb://owner:hunter2@a,b", "mongodb://owner:hunter2@a:1,b:2/?replicaSet=x"])
def test_several_hosts_cannot_be_one_container(uri: str) -> None:
    with pytest.raises(InputError, match="it names several hosts, and a container is one") as caught:
        mcu_registry.at_address(uri, "10.0.0.2")
    _assert_silent(caught.value)


@pytest.mark.parametrize("database", ["", "a b", "a/b", "a.b", "a$b", "x" * 200])
def test_unusable_database_name_is_an_error_of_the_option(database: str) -> None:
    with pytest.raises(FleetError) as caught, McuRegistry("mongodb://127.0.0.1:1", database, timeout=0.2) as registry:
        registry.read()
    assert caught.value.code in {"invalid_option", "database_unreachable"}


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_timeout_that_is_no_time_is_refused(timeout: float) -> None:
    with (
        pytest.raises(InputError, match="give a mongodb_timeout over 0"),
        McuRegistry("mongodb://h", "db", timeout=timeout),
    ):
        pass


def test_closed_port_is_unreachable_and_its_password_stays_secret() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        uri = f"mongodb://owner:hunter2@127.0.0.1:{port}/?authSource=admin"
        with pytest.raises(LinkError) as caught, McuRegistry(uri, "trailcurrent", timeout=0.3) as registry:
            registry.read()
    assert caught.value.code == "database_unreachable"
    assert str(caught.value) == (
        f"Could not read the registry of modules (database trailcurrent at 127.0.0.1:{port}): no answer within 0.3 s "
        f"(127.0.0.1:{port}: [Errno 111] Connection refused); "
        "start the RV's containers, or check mongodb_uri and container."
    )
    _assert_silent(caught.value)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100, b"\xff" * 64, None], ids=str)
def test_peer_that_is_no_mongodb_is_unreachable_and_not_a_crash(answer: bytes | None) -> None:
    """An empty answer hangs up at once; None never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, answer), daemon=True)
        thread.start()
        uri = f"mongodb://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(LinkError) as caught, McuRegistry(uri, "trailcurrent", timeout=0.4) as registry:
            registry.read()
    assert caught.value.code == "database_unreachable"


def test_name_that_nobody_knows_is_unreachable() -> None:
    uri = "mongodb://no-such-host.invalid"
    with pytest.raises(LinkError, match=r"no-such-host\.invalid:27017") as caught, _open(uri) as registry:
        registry.read()
    assert caught.value.code == "database_unreachable"


@given(st.text(max_size=40))
def test_any_address_raises_nothing_but_an_input_error(rest: str) -> None:
    try:
        mcu_registry.at_address("mongodb://" + rest, "10.0.0.2")
    except InputError as error:
        assert error.code == "invalid_option"
    else:
        assert rest


def _open(uri: str) -> McuRegistry:
    return McuRegistry(uri, "trailcurrent", timeout=0.3)


def _serve(server: socket.socket, answer: bytes | None) -> None:
    held = []
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        held.append(connection)
        if answer is not None:
            connection.sendall(answer)
            connection.close()


def _assert_silent(error: FleetError) -> None:
    text = str(error) + repr(error.details)
    assert "hunter2" not in text
    assert "owner" not in text
