"""The command line: `annotate`."""
