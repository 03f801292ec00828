"""Files that the containers need in addition to their images."""
