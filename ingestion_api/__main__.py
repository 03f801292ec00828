"""`python -m ingestion_api`."""

from ingestion_api.main import main

if __name__ == "__main__":  # the processes that store bulk uploads import this module too
    main()
