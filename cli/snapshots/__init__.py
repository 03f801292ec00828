"""Snapshots of the labelled data."""
