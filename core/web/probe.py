"""Health check of containers: `python -m core.web.probe PORT PATH` exits with 0 if the path returns 200.

It runs every few seconds, so it imports the standard library only.
"""

import http.client
import sys

_SECONDS = 5


def probe(port: int, path: str) -> tuple[bool, str]:
    """Return whether a GET returns 200, and the body or the error."""
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
    """Print the response; return the exit code."""
    is_well, said = probe(int(sys.argv[1]), sys.argv[2])
    print(said)  # noqa: T201
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
