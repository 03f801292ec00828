"""Peers of the APIs: our own apps, and the locks of other servers."""
