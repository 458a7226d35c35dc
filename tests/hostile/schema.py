"""`python -m tests.hostile.schema`: schemathesis on the whole OpenAPI of a real service with real things in it.

It makes up requests from the schema, right and wrong ones, and follows what answers say from one operation to the next.
No answer may be a 5xx, and each must be as the schema says: its status, type, headers and body. Two runs: one whose ids
are made up or found in answers, and one with the ids of things that are there. `make fuzz` makes its environment.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from lambdahat import Client
from store import keys
from tests.hostile.service import Watched, service
from tests.lambdahat.lab import measured_series, new_series

PROGRAM = Path(__file__).parents[2] / ".venv-fuzz" / "bin" / "schemathesis"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
# With an id from an answer it would revoke the key that it is used with; with one made for it, it can't.
_REVOKE = "DELETE /v1/api-keys/{key_id}"
_DELETE = "DELETE /v1/series/{series_id}"
_CASES = re.compile(r"Test cases:\s+(\d+) generated")


def things(watched: Watched) -> dict[str, str]:
    """The ids of one of each thing, by the name of a path's parameter; `spare`: a series that may go."""
    lab = watched.lab
    with Client(str(lab.base_url), lab.api_key) as client:
        series, job = measured_series(client, lab.engine)
        checkpoint = next(client.list_checkpoints(series))
        spare = new_series(client, "spare", steps=(0,))
    with Session(lab.engine) as session, session.begin():
        keys.create_key(session, lab.tenant_id, "to be revoked")
    key = lab.get("/v1/api-keys").json()["data"][0]["id"]
    return {
        "series_id": series.id,
        "job_id": job.id,
        "checkpoint_id": checkpoint.id,
        "model_id": series.model,
        "dataset_id": series.dataset,
        "key_id": key,
        "sha256": checkpoint.blob,
        "spare": spare.id,
    }


def configuration(ids: dict[str, str]) -> str:
    """In schemathesis's words (TOML): these ids in place of made up ones."""
    said = [f'"path.{name}" = {json.dumps(value)}' for name, value in ids.items() if name != "spare"]
    spare = f'parameters = {{ "path.series_id" = {json.dumps(ids["spare"])} }}'
    return "\n".join(["[parameters]", *said, "", "[[operations]]", f'include-name = "{_DELETE}"', spare, ""])


def run(watched: Watched, config: str, *options: str) -> tuple[int, int]:
    """(exit status, how many cases) of one run; what it says is printed."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "schemathesis.toml").write_text(config)
        command: list[Any] = [PROGRAM, "--config-file", Path(folder) / "schemathesis.toml", "run"]
        command += [f"{watched.lab.base_url}/openapi.json", "-H", f"Authorization: Bearer {watched.lab.api_key}"]
        command += ["--checks", ",".join(CHECKS), "--request-timeout", "20", "--no-color", "--warnings", "off"]
        command += ["--generation-database", "none", "--suppress-health-check", "all", "--continue-on-failure"]
        environment = {**os.environ, "COLUMNS": "120"}
        done = subprocess.run(
            [*command, *options], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
    print(done.stdout, flush=True)
    cases = _CASES.search(done.stdout)
    return done.returncode, int(cases[1]) if cases else 0


def main() -> int:
    """0 if nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.schema", description=__doc__)
    parser.add_argument("--examples", type=int, default=320, help="of each operation, in each phase of each run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    options = ["--max-examples", str(arguments.examples), "--seed", str(arguments.seed)]
    with service() as watched:
        config = configuration(things(watched))
        runs = [run(watched, config, *options, "--phases", "examples,coverage,fuzzing")]
        runs.append(run(watched, "", *options, "--exclude-name", _REVOKE))
        growth, crashes = watched.growth / 2**20, watched.crashes
    total = sum(cases for _, cases in runs)
    print(f"{total} cases, exit statuses {[status for status, _ in runs]}; the service grew by {growth:.1f} MB")
    print("\n".join(crashes[:50]), file=sys.stderr)
    return any(status for status, _ in runs) or bool(crashes) or not total


if __name__ == "__main__":
    sys.exit(main())
