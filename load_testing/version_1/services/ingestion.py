"""Version 1's ingestion service: each POST waits until Argilla has its text.

Runs in version 1's environment: `uvicorn --app-dir … ingestion:app`.
"""

import os

import argilla as rg
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

DATASET = "toxicity"


class Submission(BaseModel):
    """What a client sends; further fields are ignored."""

    text: str
    label: str | None = None
    score: float | None = None


app = FastAPI(title="Version 1: ingestion")
rg.init(os.environ["ARGILLA_API_URL"], os.environ["ARGILLA_API_KEY"], os.environ["ARGILLA_WORKSPACE"])


@app.post("/texts", status_code=201)
def create_text(submission: Submission) -> dict[str, int]:
    """Write a text into Argilla. No `async`, so FastAPI calls it in a thread: several run at a time."""
    claim = None if submission.label is None else [(submission.label, submission.score or 1.0)]
    logged = rg.log(rg.TextClassificationRecord(text=submission.text, prediction=claim), DATASET)
    return {"processed": logged.processed, "failed": logged.failed}


@app.exception_handler(Exception)
def name_the_failure(_: Request, error: Exception) -> JSONResponse:
    """Say what failed. This alone was added for the comparison: the framework answers 500 without a reason."""
    return JSONResponse({"detail": f"{type(error).__name__}: {error}"}, 500)
