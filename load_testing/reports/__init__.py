"""Summaries, verdicts, plots and the report of a load test."""
