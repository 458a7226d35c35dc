"""How long the questions about stages take, with 100 000 stages in the database: docs/queries.md.

python -m bench.queries
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import httpx
import numpy as np

from bench.load import ROOT, Bench, bench, machine

DOCUMENT = ROOT / "docs" / "queries.md"

SERIES, STAGES = 10_000, 10
"""The published runs have five transitions each."""
CHECKPOINTS, CURVES = 200, 21
"""Of each series whose curve is asked about, and how many those are."""
REPEATS = 60
GOAL_MS = 50

# Ids in the order of their making, as ours are. Every series has a model of its own, as `lambdahat push` makes them.
# The twenty series of a group, seeds of one experiment, have transitions alike.
FILL = """
WITH model AS (
    INSERT INTO models (id, tenant_id, name, spec, num_parameters)
    SELECT 'mod_' || lpad(to_hex(n), 32, '0'), tenant_id, name, spec, num_parameters
    FROM models, generate_series(1, %(series)s) n WHERE id = (SELECT model_id FROM series WHERE id = %(like)s)
), made AS (
    INSERT INTO series (id, tenant_id, name, model_id, dataset_id, tags)
    SELECT 'ser_' || lpad(to_hex(n), 32, '0'), tenant_id, 'run ' || n, 'mod_' || lpad(to_hex(n), 32, '0'), dataset_id,
           jsonb_build_object('seed', n, 'group', n / 20, 'optimizer', (ARRAY['adamw', 'sgd', 'muon'])[1 + n %% 3])
    FROM series, generate_series(1, %(series)s) n WHERE id = %(like)s RETURNING *
), job AS (
    INSERT INTO jobs (id, tenant_id, series_id, settings, state, started_at, finished_at)
    SELECT 'job_' || right(id, 32), tenant_id, id, '{}', 'succeeded', now(), now() FROM made RETURNING *
), alike AS (
    SELECT *, ('x' || right(id, 8))::bit(32)::int / 20 || '-' || k AS which
    FROM job, generate_series(0, %(stages)s - 1) k
), read AS (
    SELECT *, (hashtextextended('a' || which, 0) & 65535) / 65535.0::float AS a,
           0.99 * (hashtextextended('size' || which, 0) & 65535) / 65535.0::float + 0.01 * random() AS size FROM alike
)
INSERT INTO stages (id, tenant_id, series_id, job_id, ordinal, kind, type, from_step, from_step_low, from_step_high,
                    to_step, to_step_low, to_step_high, probability_a, probability_b, probability_neither, delta_loss,
                    delta_loss_std_error, delta_llc, delta_llc_std_error, survival, details)
SELECT 'stg_' || lpad(right(id, 4) || to_hex(4096 + k), 32, '0'), tenant_id, series_id, id, k,
       (ARRAY['plateau', 'transition'])[1 + k %% 2],
       CASE WHEN k %% 2 = 0 OR a BETWEEN 0.4 AND 0.6 THEN NULL WHEN a > 0.5 THEN 'A' ELSE 'B' END,
       1000 * k, 1000 * k - 90, 1000 * k + 90, 1000 * k + 1000, 1000 * k + 900, 1000 * k + 1100,
       a, 1 - a, 0, -size, 0.01, 200 * size - 100, 1, round(8 * random()) / 8,
       '{"reason": "the LLC rises and the loss falls"}'
FROM read ORDER BY id, k
"""


UNLIKE = """
SELECT array_agg(id) FROM series CROSS JOIN cast(tags ->> 'seed' AS int) n
GROUP BY n %% 20, n / 400 HAVING count(*) = 20 ORDER BY 1 LIMIT %(families)s
"""
"""Twenty series each, of as many groups."""

CURVE = """
WITH posted AS (
    INSERT INTO checkpoints (id, tenant_id, series_id, step, blob, metrics)
    SELECT 'ckp_' || md5(s.id || n), s.tenant_id, s.id, 200 * n, (SELECT blob FROM checkpoints LIMIT 1),
           jsonb_build_object('accuracy', random(), 'learning_rate', random())
    FROM series s, generate_series(0, %(checkpoints)s - 1) n WHERE s.id = ANY(%(series)s) RETURNING *
), shard AS (
    INSERT INTO shards (id, job_id, ordinal, checkpoint_ids, state)
    SELECT 'shd_' || md5(id), id, 0, '[]', 'succeeded' FROM jobs WHERE series_id = ANY(%(series)s) RETURNING *
)
INSERT INTO results (job_id, checkpoint_id, measure, shard_id, fence, quantities, details, verdict, reason)
SELECT s.job_id, p.id, measure, s.id, 1,
       jsonb_build_object(measure, jsonb_build_object('value', random(), 'std_error', random())), '{}', 'ok', ''
FROM shard s JOIN jobs j ON j.id = s.job_id JOIN posted p ON p.series_id = j.series_id,
     unnest(ARRAY['loss', 'llc', 'hessian']) measure
"""


def questions(series: str, job: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Path and parameters of each."""
    everywhere = "/v1/transitions"
    return {
        "stages of a series": (f"/v1/series/{series}/stages", {"job": job}),
        "transitions of a series": (f"/v1/series/{series}/transitions", {"job": job}),
        "transitions of all, newest": (everywhere, {}),
        "… of type B, at least .9": (everywhere, {"type": "B", "min_probability": 0.9}),
        "… in a range of steps": (everywhere, {"from_step": 5_000, "to_step": 6_000}),
        "… of the largest percent": (everywhere, {"min_delta_llc": 99}),
        "… of one seed": (everywhere, {"tag": "seed:77"}),
        "… of an optimizer": (everywhere, {"tag": "optimizer:muon", "type": "A"}),
        "… of a model family": (everywhere, {"family": "mlp", "min_probability": 0.99}),
        "… that there are none of": (everywhere, {"family": "transformer"}),
        "… that always survive": (everywhere, {"min_survival": 1}),
        "… where no training has gone": (everywhere, {"from_step": 10_000_000}),
        "… surer than all but a few": (everywhere, {"min_probability": 0.99999}),
        "… by all of these": (
            everywhere,
            {"type": "B", "min_probability": 0.95, "from_step": 3000, "tag": "optimizer:sgd", "min_delta_llc": 90},
        ),
        "two checkpoints compared": (f"/v1/series/{series}/compare", {"from_step": 0, "to_step": 2000, "job": job}),
        "what changes at a series' transitions": (f"/v1/series/{series}/evidence", {"job": job}),
    }


SQL: Mapping[str, LiteralString] = {
    "`stage`: of a series": "SELECT * FROM stage WHERE series_id = %(series)s",
    "`stage`: the surest Bs of all": """SELECT series_name, from_step, to_step, delta_llc, probability_b FROM stage
        WHERE kind = 'transition' AND probability_b > 0.9 ORDER BY abs(delta_llc) DESC LIMIT 50""",
    "`stage`: how many of each type": "SELECT type, count(*) FROM stage WHERE kind = 'transition' GROUP BY type",
    "`llc_curve`: of a series": """SELECT step, value, std_error FROM llc_curve
        WHERE series_id = %(series)s AND quantity = 'llc' ORDER BY step""",
}
"""Questions of the two views that docs/how.md names."""


Row = tuple[str, float, float, int]
"""A question with its median and its slowest answer in ms, and how many came back."""


def fill(of: Bench) -> list[tuple[str, str]]:
    """The series with a curve, and their jobs."""
    model = of.client.create_model("small", {"family": "mlp", "widths": [3, 4, 2]})
    data = of.client.create_dataset("xy", x=np.zeros((8, 3), np.float32), y=np.zeros(8, np.int64))
    like = of.client.create_series("the first", model, data).id
    with of.database.transaction():
        of.database.execute(FILL, {"series": SERIES, "stages": STAGES, "like": like})
    read = "SELECT DISTINCT series_id, job_id FROM stages ORDER BY job_id LIMIT %s"
    found = of.database.execute(read, [CURVES]).fetchall()
    of.database.execute(CURVE, {"series": [series for series, _ in found], "checkpoints": CHECKPOINTS})
    of.database.commit()
    of.database.autocommit = True
    of.database.execute("VACUUM ANALYZE")  # as autovacuum soon does after so much was written
    return [(series, job) for series, job in found]


def timed(name: str, asks: Sequence[Callable[[], int]]) -> Row:
    """Of asking each of these once, which all answer `name`."""
    took, count = [], 0
    for ask in asks:
        start = time.perf_counter()
        count = ask()
        took.append(1000 * (time.perf_counter() - start))
    return name, statistics.median(took), max(took), count


def measure(of: Bench) -> Iterator[Row]:
    """Every question."""
    (series, job), *others = fill(of)
    with httpx.Client(base_url=of.stack.url, headers={"Authorization": f"Bearer {of.stack.key}"}) as client:

        def get(path: str, asked: Mapping[str, Any]) -> int:
            found = client.get(path, params=dict(asked)).raise_for_status()
            if not found.headers["content-type"].startswith("application/json"):
                return 1
            answer = found.json()
            return len(answer.get("data", answer.get("runs", [answer])))

        for name, (path, asked) in questions(series, job).items():
            ask = partial(get, path, asked)
            ask()  # opens what is opened once
            yield timed(name, [ask] * REPEATS)
        get("/v1/alignment", {"tag": f"group:{REPEATS + 1}"})  # as above
        groups = [{"tag": f"group:{n}"} for n in range(1, REPEATS + 1)]
        seeds = [partial(get, "/v1/alignment", group) for group in groups]
        yield timed("what 20 seeds have in common, when first asked for", seeds)
        yield timed("… and again", seeds)
        families = of.database.execute(UNLIKE, {"families": REPEATS})
        alone = [partial(get, "/v1/alignment", {"series": unlike}) for (unlike,) in families]
        yield timed("what 20 series that are nothing alike have, first", alone)
        yield timed("… and again", alone)
        figures = [partial(get, f"/v1/series/{one}/figure", {}) for one, _ in others]
        yield timed("the picture of a series, when first asked for", figures)
        yield timed("… and again", figures)
        pictures = [partial(get, "/v1/alignment/figure", group) for group in groups[: len(figures)]]
        yield timed("the picture of an alignment of 20, first", pictures)
        yield timed("… and again", pictures)
    for name, query in SQL.items():
        asks = [partial(_rows, of, query, {"series": series})] * REPEATS
        yield timed(f"SQL, {name}", asks)


def _rows(of: Bench, query: LiteralString, of_what: Mapping[str, str]) -> int:
    return len(of.database.execute(query, of_what).fetchall())


def document(rows: list[Row]) -> str:
    """docs/queries.md."""
    lines = [f"| {name} | {count} | {median:.0f} ms | {late:.0f} ms |" for name, median, late, count in rows]
    return "\n".join(
        [
            "# Questions about stages",
            "",
            f"`python -m bench.queries`, {machine()}: {SERIES * STAGES} stages of {SERIES} series in the database. "
            f"Over HTTP, one after the other, {REPEATS} times each, pages of 50; the goal is {GOAL_MS} ms. Pictures "
            "are drawn when they are first asked for, and kept.",
            "",
            "| | answers | median | slowest |",
            "|---|---|---|---|",
            *lines,
            "",
        ]
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.queries", description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    arguments = parser.parse_args()
    with bench() as of:
        text = document(list(measure(of)))
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
