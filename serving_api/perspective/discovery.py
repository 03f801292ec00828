"""Google's discovery document of the API: client libraries make their methods from it."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving_api.perspective.schemas import (
    AnalyzeCommentRequest,
    AnalyzeCommentResponse,
    SuggestCommentScoreRequest,
    SuggestCommentScoreResponse,
)

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
# Of JSON Schema; the discovery document has other means, or none.
_DROPPED = {"title", "default", "minimum", "maximum", "examples"}


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
    return {name: {"id": name} | _translated(one) for name, one in schema["$defs"].items()}


def _translated(schema: Any) -> Any:
    """Return a JSON Schema in the discovery document's words: no union with null, and no closed objects."""
    if not isinstance(schema, dict):
        return schema
    kept = {name: value for name, value in schema.items() if name not in _DROPPED}
    if kept.get("additionalProperties") is False:
        del kept["additionalProperties"]
    for choice in kept.pop("anyOf", []):
        if choice != {"type": "null"}:
            kept |= choice
    formats = {"number": {"format": "float"}, "integer": {"format": "int32"}}
    kept |= formats.get(str(kept.get("type")), {})
    return {
        name: {key: _translated(one) for key, one in value.items()} if name == "properties" else _translated(value)
        for name, value in kept.items()
        if name != "required"
    }
