"""The response of `GET /datasets`, with its example."""

from pydantic import BaseModel, Field

from core.web.openapi import Responses, answer, refusals
from core.web.problems import Unavailable


class DatasetRead(BaseModel):
    """A dataset of the settings, and where annotators answer its texts."""

    name: str
    labels: list[str]
    answers_wanted: int = Field(description="Submitted annotations that complete a text.")
    argilla_url: str | None = Field(
        description="Its page in Argilla; null before the uploader has made it. With `&search=` and words of a "
        "text the page shows that text."
    )
    adjudication_url: str | None = Field(description="The page on which adjudicators decide its disputed texts.")


class DatasetList(BaseModel):
    """The datasets of the settings that the request's key may use."""

    items: list[DatasetRead]


_PAGE = "http://127.0.0.1:6900/dataset/2f1c8b52-2f4e-4a57-9a53-0c1f6b7d2e90/annotation-mode?status=pending"
_EXAMPLE = {
    "items": [
        {
            "name": "toxicity",
            "labels": ["toxic", "non_toxic"],
            "answers_wanted": 3,
            "argilla_url": _PAGE,
            "adjudication_url": None,
        }
    ]
}
DATASETS: Responses = {
    200: answer("The datasets.", _EXAMPLE),
    **refusals(Unavailable("The database is away.", code="database_unavailable"), scope="ingest"),
}
