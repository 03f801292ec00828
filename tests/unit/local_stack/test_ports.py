import os
import socket
from collections.abc import Iterator

import pytest

from local_stack import StackError
from local_stack.ports import check_ports_free, is_port_free, reserved_ports


@pytest.fixture
def taken_port() -> Iterator[int]:
    with reserved_ports(1) as [port], socket.create_server(("127.0.0.1", port)):
        yield port


def test_port_with_a_listener_is_not_free(taken_port: int) -> None:
    assert not is_port_free(taken_port)


def test_reserved_port_is_free() -> None:
    with reserved_ports(1) as [port]:
        assert is_port_free(port)


def test_taken_port_message_names_port_setting_and_holder(taken_port: int) -> None:
    with pytest.raises(StackError) as raised:
        check_ports_free({"REDIS_PORT": taken_port})
    message = str(raised.value)
    assert f"Port {taken_port} is taken by " in message
    assert f"(pid {os.getpid()})" in message
    assert "set REDIS_PORT" in message


def test_every_taken_port_is_named(taken_port: int) -> None:
    with (
        reserved_ports(1) as [other],
        socket.create_server(("127.0.0.1", other)),
        pytest.raises(StackError) as raised,
    ):
        check_ports_free({"A_PORT": taken_port, "B_PORT": other})
    assert "A_PORT" in str(raised.value)
    assert "B_PORT" in str(raised.value)


def test_reservations_do_not_overlap() -> None:
    candidates = range(20_000, 20_040)
    with reserved_ports(15, candidates) as first, reserved_ports(15, candidates) as second:
        assert len({*first, *second}) == 30


def test_too_few_free_ports_is_an_error(taken_port: int) -> None:
    with (
        pytest.raises(StackError, match="Fewer than 1 free ports"),
        reserved_ports(1, range(taken_port, taken_port + 1)),
    ):
        pytest.fail("a taken port was given")


def test_reservation_ends_with_its_block() -> None:
    with reserved_ports(1) as [port]:
        pass
    with reserved_ports(1, range(port, port + 1)) as again:
        assert again == [port]
