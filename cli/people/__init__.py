"""Annotators, gold texts, keys and the audit log."""
