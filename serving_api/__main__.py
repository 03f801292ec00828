"""`python -m serving_api`."""

if __name__ == "__main__":  # further processes load this module too
    from serving_api.main import main

    main()
