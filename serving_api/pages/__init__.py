"""The dashboard: static files, and the endpoints that only the dashboard needed so far."""
