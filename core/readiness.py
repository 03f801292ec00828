"""Why a program is not ready, in words for strangers: anybody who reaches a port may ask /readyz.

What libraries say names hosts, ports, users and databases. It goes into the log; /readyz shows a reason from here.
"""

# What errors of Postgres, of the network and of the name service say, in lower case, and what is shown instead.
_REASONS = (
    ("password authentication failed", "wrong password"),
    ("pg_hba.conf", "the database does not let us in"),
    ("does not exist", "the database, a role or a table does not exist"),
    ("permission denied", "permission denied"),
    ("connection refused", "connection refused"),
    ("name resolution", "unknown host"),
    ("name or service not known", "unknown host"),
    ("resolve host", "unknown host"),
    ("translate host name", "unknown host"),
    ("starting up", "the database is starting up"),
    ("shutting down", "the database is shutting down"),
    ("too many", "too many connections"),
    ("timeout", "timeout"),
    ("timed out", "timeout"),
    ("certificate", "the certificate is refused"),
    ("network is unreachable", "no connection"),
    ("no route to host", "no connection"),
    ("connection", "no connection"),
)


class NotReady(Exception):
    """Something that the program needs is not there. The message is shown to strangers: no addresses, no names."""


def public_reason(error: BaseException) -> str:
    """Return why a check failed, as strangers may read it."""
    if isinstance(error, NotReady):
        return str(error)
    if isinstance(error, TimeoutError):
        return "timeout"
    said = str(error).lower()
    found = next((reason for words, reason in _REASONS if words in said), None)
    return found or f"it failed ({type(error).__name__}): see the log"
