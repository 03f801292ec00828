"""The messages of commentanalyzer v1alpha1, their OpenAPI, and Google's discovery document."""

from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import models_json_schema

from core.web.openapi import Responses, answer, header, reference
from core.web.problems import (
    MissingKey,
    NotAcceptable,
    Problem,
    RateLimited,
    ScopeMissing,
    TooLarge,
    Unavailable,
    UnsupportedType,
)

ScoreType = Literal["SCORE_TYPE_UNSPECIFIED", "PROBABILITY", "STD_DEV_SCORE", "PERCENTILE", "RAW"]


class Message(BaseModel):
    """A message whose fields have names in camel case, and no fields that are not known."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class TextEntry(Message):
    """A body of text."""

    text: str = Field("", description="UTF-8 encoded text, at most 64 KiB.")
    type: Literal["TEXT_TYPE_UNSPECIFIED", "PLAIN_TEXT", "HTML"] = Field(
        "PLAIN_TEXT", description="Type of the text field; HTML is refused."
    )


class ArticleAndParentComment(Message):
    """The comment's article and parent comment."""

    article: TextEntry = Field(default_factory=TextEntry)
    parent_comment: TextEntry = Field(default_factory=TextEntry)


class CommentContext(Message):
    """What the comment refers or replies to; accepted and ignored."""

    entries: list[TextEntry] = []
    article_and_parent_comment: ArticleAndParentComment | None = None


class AttributeParameters(Message):
    """How one attribute is scored."""

    score_type: ScoreType = Field("PROBABILITY", description="Only PROBABILITY is supported.")
    score_threshold: float = Field(0.0, description="The attribute is left out if its score is lower than this.")


class Score(Message):
    """The score of a comment or a part of it."""

    value: float = Field(ge=0, le=1, description="Probability of the attribute.")
    type: ScoreType = Field("SCORE_TYPE_UNSPECIFIED", description="PROBABILITY in responses.")

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_zero(cls, fields: object) -> object:
        # Google's clients leave a zero out.
        return {"value": 0.0} | fields if isinstance(fields, dict) else fields


class SpanScore(Message):
    """The score of one part of the comment."""

    begin: int = Field(description="First character, counted in Unicode code points.")
    end: int = Field(description="The character after the last one.")
    score: Score


class AttributeScores(Message):
    """The scores of one attribute."""

    span_scores: list[SpanScore] = Field([], description="If spanAnnotations is set: one span, the whole comment.")
    summary_score: Score | None = Field(None, description="Score of the whole comment.")


class CommentRequest(Message):
    """The fields that both requests have."""

    comment: TextEntry = Field(default_factory=TextEntry, description="The comment.")
    context: CommentContext | None = Field(None, description="Accepted and ignored.")
    languages: list[str] = Field([], description="Languages of the comment; returned, and otherwise ignored.")
    client_token: str = Field("", description="Returned as it is.")
    session_id: str = Field("", description="Accepted and ignored.")
    community_id: str = Field("", description="Of a suggestion: the source of the submission.")


class AnalyzeCommentRequest(CommentRequest):
    """The comment analysis request message."""

    requested_attributes: dict[str, AttributeParameters] = Field({}, description="Attributes by name.")
    do_not_store: bool = Field(False, description="Comments are never stored, whatever this says.")
    span_annotations: bool = Field(False, description="Whether spanScores are returned.")
    drop_unsupported_attributes: bool = Field(False, description="Leave unknown attributes out of the response.")


class AnalyzeCommentResponse(Message):
    """The comment analysis response message."""

    attribute_scores: dict[str, AttributeScores] = {}
    languages: list[str] = Field([], description="The languages of the request.")
    client_token: str = ""


class SuggestCommentScoreRequest(CommentRequest):
    """The comment score suggestion request message."""

    attribute_scores: dict[str, AttributeScores] = Field({}, description="Suggested scores by attribute.")


class SuggestCommentScoreResponse(Message):
    """The comment score suggestion response message."""

    requested_languages: list[str] = Field([], description="The languages of the request.")
    client_token: str = ""


class GoogleStatus(BaseModel):
    """Google's error: `status` is the name of its code of gRPC."""

    code: int
    message: str
    status: str
    details: list[dict[str, Any]]


class GoogleError(BaseModel):
    """A refusal in Google's shape."""

    error: GoogleStatus


# The names of https://cloud.google.com/apis/design/errors by their HTTP status.
_STATUSES = {
    HTTPStatus.UNAUTHORIZED: "UNAUTHENTICATED",
    HTTPStatus.FORBIDDEN: "PERMISSION_DENIED",
    HTTPStatus.NOT_FOUND: "NOT_FOUND",
    HTTPStatus.TOO_MANY_REQUESTS: "RESOURCE_EXHAUSTED",
    HTTPStatus.INTERNAL_SERVER_ERROR: "INTERNAL",
    HTTPStatus.NOT_IMPLEMENTED: "UNIMPLEMENTED",
    HTTPStatus.BAD_GATEWAY: "UNAVAILABLE",
    HTTPStatus.SERVICE_UNAVAILABLE: "UNAVAILABLE",
}
# What Perspective's own errors are called there.
_ERROR_TYPES = {"comment_too_long", "comment_empty", "no_requested_attributes", "invalid_request"}
_PERSPECTIVE_ERROR = "type.googleapis.com/google.commentanalyzer.v1alpha1.Error"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


def google_error(problem: dict[str, Any]) -> dict[str, Any]:
    """Return a problem of RFC 9457 in Google's shape; its code becomes the error type or the reason."""
    code, status = problem["code"], problem["status"]
    if code in _ERROR_TYPES:
        detail = {"@type": _PERSPECTIVE_ERROR, "errorType": code.upper()}
    else:
        detail = {"@type": _ERROR_INFO, "reason": code.upper(), "domain": "annotation-platform"}
    name = _STATUSES.get(status, "INVALID_ARGUMENT")
    return {"error": {"code": status, "message": problem["detail"], "status": name, "details": [detail]}}


_COMMENT = {"comment": {"text": "you are an idiot"}}
_ANALYZE = _COMMENT | {
    "languages": ["en"],
    "requestedAttributes": {"TOXICITY": {}},
    "doNotStore": True,
    "clientToken": "comment:17",
}
_SUMMARY = {"summaryScore": {"value": 0.94, "type": "PROBABILITY"}}
_SUGGEST = _COMMENT | {
    "attributeScores": {"TOXICITY": {"summaryScore": {"value": 1}}},
    "communityId": "forum",
    "clientToken": "comment:17",
}
_TOKEN = {"clientToken": "comment:17"}


class BadComment(Problem):
    """The request is not one that Perspective would take; `code` is its error type in lower case."""

    status = 400
    code = "invalid_request"


def _body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": reference(model), "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def _refusals(*problems: Problem) -> Responses:
    described: Responses = {}
    for problem in problems:
        content = {"schema": reference(GoogleError), "example": google_error(problem.as_dict())}
        headers = {name: header(name, value) for name, value in problem.headers.items()}
        described[problem.status] = {
            "description": problem.as_dict()["title"],
            "content": {"application/json": content},
            "headers": headers,
        }
    return described


_REFUSED = (
    BadComment("Comment must be non-empty.", code="comment_empty"),
    MissingKey("Send an API key: Authorization: Bearer KEY."),
    ScopeMissing("This API key lacks the scope read."),
    NotAcceptable("Accept rules out what is sent here: application/json."),
    TooLarge("The body is over 1048576 bytes."),
    UnsupportedType("Send the body as Content-Type: application/json."),
    RateLimited(50, 100, 1),
)
_NO_MODEL = Unavailable("The dataset toxicity has no model yet.", code="no_model", retry_after_seconds=60)
NOT_UNDERSTOOD = "The ingestion API failed: the suggestion may not be stored."
NOT_SET_UP = "Suggestions are not set up here: set PERSPECTIVE_INGESTION_URL."


def away() -> Unavailable:
    """Return the refusal of suggestions while the ingestion API does not answer."""
    detail = "The ingestion API does not answer: send the suggestion again."
    return Unavailable(detail, code="ingestion_away", retry_after_seconds=5)


class IngestionFailed(Problem):
    """The ingestion API failed."""

    status = 502
    code = "ingestion_failed"


class NotSetUp(Problem):
    """The settings name no ingestion API."""

    status = 501
    code = "not_set_up"


ANALYZE_BODY = _body(AnalyzeCommentRequest, _ANALYZE)
SUGGEST_BODY = _body(SuggestCommentScoreRequest, _SUGGEST)
ANALYZED: Responses = {
    200: answer("The scores.", {"attributeScores": {"TOXICITY": _SUMMARY}, "languages": ["en"]} | _TOKEN),
    **_refusals(*_REFUSED, _NO_MODEL),
}
SUGGESTED: Responses = {
    200: answer("The suggestion is stored.", _TOKEN),
    **_refusals(*_REFUSED, NotSetUp(NOT_SET_UP), IngestionFailed(NOT_UNDERSTOOD), away()),
}
DISCOVERY: Responses = {
    200: answer("Google's discovery document.", {"kind": "discovery#restDescription", "name": "commentanalyzer"}),
    **_refusals(NotAcceptable("Accept rules out what is sent here: application/json.")),
}


VERSION = "v1alpha1"
_METHODS: dict[str, tuple[type[BaseModel], type[BaseModel], str]] = {
    "analyze": (
        AnalyzeCommentRequest,
        AnalyzeCommentResponse,
        "Analyzes the provided text and returns scores for requested attributes.",
    ),
    "suggestscore": (
        SuggestCommentScoreRequest,
        SuggestCommentScoreResponse,
        "Suggests comment scores: each becomes a submission whose label annotators see as a claim.",
    ),
}
_PARAMETERS = {
    "key": "API key.",
    "alt": "Data format of the response: json.",
    "fields": "Accepted and ignored.",
    "prettyPrint": "Accepted and ignored.",
    "quotaUser": "Accepted and ignored.",
    "$.xgafv": "Accepted and ignored.",
}


def discovery_document(root_url: str) -> dict[str, Any]:
    """Return the document for clients that reach this API at `root_url`."""
    return {
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": f"commentanalyzer:{VERSION}",
        "name": "commentanalyzer",
        "version": VERSION,
        "revision": "20261130",
        "title": "Perspective Comment Analyzer API",
        "description": "Scores comments by a model of this platform, in the shapes of Perspective's API.",
        "protocol": "rest",
        "rootUrl": f"{root_url}/",
        "baseUrl": f"{root_url}/",
        "basePath": "",
        "servicePath": "",
        "batchPath": "batch",
        "parameters": {
            name: {"type": "string", "location": "query", "description": meaning}
            for name, meaning in _PARAMETERS.items()
        },
        "schemas": _schemas(),
        "resources": {"comments": {"methods": {name: _method(name) for name in _METHODS}}},
    }


def _method(name: str) -> dict[str, Any]:
    request, response, meaning = _METHODS[name]
    path = f"{VERSION}/comments:{name}"
    return {
        "id": f"commentanalyzer.comments.{name}",
        "path": path,
        "flatPath": path,
        "httpMethod": "POST",
        "description": meaning,
        "parameters": {},
        "parameterOrder": [],
        "request": {"$ref": request.__name__},
        "response": {"$ref": response.__name__},
    }


def _schemas() -> dict[str, Any]:
    models = [model for request, response, _ in _METHODS.values() for model in (request, response)]
    _, schema = models_json_schema([(model, "validation") for model in models], ref_template="{model}")
    return {
        name: {
            "id": name,
            "type": "object",
            "description": one["description"],
            # The document has no unions: the first choice is the message, the second is null.
            "properties": {field: each | each.get("anyOf", [{}])[0] for field, each in one["properties"].items()},
        }
        for name, one in schema["$defs"].items()
    }
