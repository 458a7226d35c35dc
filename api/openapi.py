"""What /openapi.json says beside what the endpoints say themselves."""

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from api.problems import Problem

VERSION = version("lambdahat")
DESCRIPTION = """
Local learning coefficients, with error bars, for every checkpoint of a training run.

Upload files (`/v1/blobs`; large ones in parts, `/v1/uploads`), make a data set and a model of them, start a series, add
its checkpoints, post a job, and read its curve. Errors are `application/problem+json`, with a stable `code` and a
`hint`.
"""


def install(app: FastAPI) -> None:
    """Declare the problem that every endpoint may answer with."""
    generate = app.openapi

    def with_problem() -> dict[str, Any]:
        schema = generate()
        described = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schema["components"]["schemas"].update({**described.pop("$defs"), "Problem": described})
        return schema

    app.openapi = with_problem
