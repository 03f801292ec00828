"""Runs in version 1's environment: puts labelled texts into Argilla, or lists all that it holds.

`records.py put` reads rows of `{"text", "label"}` as JSON lines; `records.py list` writes the texts as JSON lines.
"""

import json
import os
import sys

import argilla as rg

DATASET = "toxicity"


def put() -> None:
    """Log the rows of standard input as texts that people have labelled."""
    rows = [json.loads(line) for line in sys.stdin]
    records = [rg.TextClassificationRecord(text=row["text"], annotation=row["label"]) for row in rows]
    logged = rg.log(records, DATASET, verbose=False)
    if (logged.processed, logged.failed) != (len(rows), 0):
        raise SystemExit(f"Argilla took {logged.processed} of {len(rows)} texts, {logged.failed} failed.")


def list_texts() -> None:
    """Write the text of each record."""
    for record in rg.load(DATASET):
        sys.stdout.write(json.dumps(record.text) + "\n")


if __name__ == "__main__":
    rg.init(os.environ["ARGILLA_API_URL"], os.environ["ARGILLA_API_KEY"], os.environ["ARGILLA_WORKSPACE"])
    {"put": put, "list": list_texts}[sys.argv[1]]()
