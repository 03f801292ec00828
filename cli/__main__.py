"""`annotate`, where its console script is not installed: `python -m cli`."""

from cli.main import main

main()
