"""Draws the figures of docs/ from their draw.io sources: `python -m tests.figures`."""
