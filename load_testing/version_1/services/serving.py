"""Version 1's serving service: each GET asks Argilla for all texts that it answers with.

Runs in version 1's environment: `uvicorn --app-dir … serving:app`.
"""

import os

import argilla as rg
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

DATASET = "toxicity"
Items = list[dict[str, str | None]]

app = FastAPI(title="Version 1: serving")
rg.init(os.environ["ARGILLA_API_URL"], os.environ["ARGILLA_API_KEY"], os.environ["ARGILLA_WORKSPACE"])


@app.get("/toxic_texts")
def toxic_texts() -> Items:
    """Return what was labelled toxic."""
    return _load("annotated_as:toxic")


@app.get("/non_toxic_texts")
def non_toxic_texts() -> Items:
    """Return what was labelled not toxic."""
    return _load("annotated_as:non_toxic")


@app.get("/texts")
def texts() -> Items:
    """Return what was labelled."""
    return _load("status:Validated")


def _load(query: str) -> Items:
    return [{"text": record.text, "label": record.annotation} for record in rg.load(DATASET, query=query)]


@app.exception_handler(Exception)
def name_the_failure(_: Request, error: Exception) -> JSONResponse:
    """Say what failed. This alone was added for the comparison: the framework answers 500 without a reason."""
    return JSONResponse({"detail": f"{type(error).__name__}: {error}"}, 500)
