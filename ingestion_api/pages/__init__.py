"""The upload page: static files."""
