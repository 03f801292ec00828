"""Backup and restore: both databases and the snapshots, in a folder. See docs/backup.md."""
