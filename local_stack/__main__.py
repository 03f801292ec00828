"""`python -m local_stack up|down|clean|status`."""

from local_stack.cli import app

app()
