"""Text classifiers: how they score texts, where they are stored, and how they are measured."""
