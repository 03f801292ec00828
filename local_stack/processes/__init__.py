"""The processes of a stack: under guard, restarted, and one stack per data directory."""
