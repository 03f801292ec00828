"""The endpoints of Hugging Face's dataset viewer, over live labels and snapshots."""
