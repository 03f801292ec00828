"""Texts whose annotations are to be read from Argilla again: noted by the ingestion API, read by the uploader."""

# Wakes the uploader; the payload is the dataset.
CHANNEL = "rereads"
