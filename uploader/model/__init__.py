"""The model in the loop: trains a classifier from a dataset's labels, and scores texts with it."""
