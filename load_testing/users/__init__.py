"""The users of both APIs: what they send, how answers are checked, and what a run records."""
