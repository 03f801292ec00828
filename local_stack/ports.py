"""Checks that ports are free, names the program on a taken one, and reserves free ones for tests."""

import errno
import os
import random
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from local_stack import StackError
from local_stack.data_dir import try_lock

# Below the kernel's range for outgoing connections, which could take a port in between.
_FREE_PORT_RANGE = range(10_000, 30_000)


def check_ports_free(ports: Mapping[str, int]) -> None:
    """Check that nothing listens on any of `ports` (setting's name to number).

    Raises:
        StackError: names every taken port, its setting and, where it can be found, the program that holds it.
    """
    problems = [_describe_taken(name, port) for name, port in ports.items() if not is_port_free(port)]
    if problems:
        raise StackError("\n".join(problems))


def is_port_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now.

    Raises:
        StackError: this user may not listen on that port at all.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set it, too. Without it, closing connections would count as "taken".
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise StackError(f"Port {port} is reserved for root: choose one from 1024.") from error
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def _describe_taken(setting: str, port: int) -> str:
    return f"Port {port} is taken{_holder(port)}. Stop that program, or set {setting} to a free port."


def _holder(port: int) -> str:
    try:
        pids = {c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid}
        holders = [psutil.Process(pid) for pid in sorted(pids)]
        return "".join(f" by {process.name()} (pid {process.pid})" for process in holders)
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return " by a program that this user may not look at"


@contextmanager
def reserved_ports(count: int, candidates: range = _FREE_PORT_RANGE) -> Iterator[list[int]]:
    """Give `count` free ports that no other caller on this machine gets until the block ends.

    Raises:
        StackError: too few of `candidates` are free.
    """
    with ExitStack() as reservations:
        ports: list[int] = []
        for port in random.sample(candidates, len(candidates)):
            if len(ports) == count:
                break
            if _reserve(port, reservations):
                ports.append(port)
        if len(ports) < count:
            raise StackError(f"Fewer than {count} free ports from {candidates.start} to {candidates.stop - 1}.")
        yield ports


def _reserve(port: int, reservations: ExitStack) -> bool:
    directory = Path(tempfile.gettempdir()) / f"annotation-platform-ports-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    file = (directory / str(port)).open("w")
    if not try_lock(file.fileno()) or not is_port_free(port):
        file.close()
        return False
    reservations.enter_context(file)
    return True
