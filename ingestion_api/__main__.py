"""`python -m ingestion_api`."""

if __name__ == "__main__":  # the processes that store bulk bodies load this module too, and need none of the rest
    from ingestion_api.main import main

    main()
