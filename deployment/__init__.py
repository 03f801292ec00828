"""What the containers need beside their images."""
