"""`python -m uploader`."""

from uploader.main import main

main()
