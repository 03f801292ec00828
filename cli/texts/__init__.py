"""Texts in, labelled texts out, and uploads to Argilla."""
