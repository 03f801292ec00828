"""Version 1 as a baseline: two FastAPI services directly on Argilla 1.29.1, in a separate environment."""
