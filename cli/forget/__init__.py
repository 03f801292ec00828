"""Takes texts out of everything."""
