"""`make compare`: the same Locust users on version 1 and on version 2, in one run."""
