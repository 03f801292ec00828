"""`python -m ingestion_api`."""

from ingestion_api.main import main

main()
