"""Benchmarks of the ingestion API."""
