"""Perspective's API, as a drop-in: comments:analyze and comments:suggestscore."""
