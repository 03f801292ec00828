"""What can go wrong with the local stack, in words for the person at the terminal."""


class StackError(Exception):
    """The stack cannot start or go on; the message says what is wrong and what to do."""


class StackStopped(StackError):
    """Somebody asked the stack to stop while it was still starting."""
