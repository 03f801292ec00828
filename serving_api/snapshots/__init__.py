"""Snapshots: immutable, named exports of the labelled data."""
