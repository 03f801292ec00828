"""Problems as HTTP answers."""

import json

from fastapi import Response

from core.openapi import PROBLEM_TYPE
from core.problems import Problem


def problem_response(problem: Problem) -> Response:
    """Render a problem; its media type is the same whatever the client accepts."""
    body = json.dumps(problem.as_dict(), ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, problem.status, problem.headers, PROBLEM_TYPE)
