"""Real Postgres, Redis, OpenSearch and Argilla on this machine, with the platform on top."""


class StackError(Exception):
    """The stack cannot start or continue; the message says why and what to do."""


class StackStopped(StackError):
    """The stack was asked to stop while it was starting."""
