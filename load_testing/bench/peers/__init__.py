"""The programs that `make bench` compares the platform with."""
