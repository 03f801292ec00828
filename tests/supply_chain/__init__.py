"""What the project is made of: hashes of its locks, licences, known vulnerabilities."""
