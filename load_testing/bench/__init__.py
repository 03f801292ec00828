"""Performance tables, `make bench`: each figure beside its peer or floor, measured in the same run."""
