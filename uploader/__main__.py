"""`python -m uploader`."""

if __name__ == "__main__":  # the processes that estimate load this module too, and need none of the rest
    from uploader.main import main

    main()
