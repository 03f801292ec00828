"""`make bench`: performance tables that compare each figure with a peer in the same run."""
