"""Installs what the stack needs: locked packages, the environment of Argilla, and files of OpenSearch."""
