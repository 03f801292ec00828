"""Version 1 as a baseline: two FastAPI services straight on Argilla 1.29.1, in an environment of their own."""
