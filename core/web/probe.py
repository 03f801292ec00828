"""Asks a program for its health: `python -m core.web.probe PORT PATH`, for the health checks of containers.

Without the web client and its proxies: it runs every few seconds and has to be light.
"""

import http.client
import sys

_SECONDS = 5


def probe(port: int, path: str) -> tuple[bool, str]:
    """Return whether a GET is answered with 200, and what was answered or why nothing was."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status == http.client.OK, answer.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return False, f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def main() -> int:
    """Ask, and print the answer; return the exit code."""
    is_well, said = probe(int(sys.argv[1]), sys.argv[2])
    print(said)  # noqa: T201
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
