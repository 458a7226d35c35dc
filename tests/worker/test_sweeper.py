"""The sweeper goes on, whatever one job is like."""

import pytest
from sqlalchemy import text

from store.settings import StoreSettings
from tests.api.lab import Lab
from worker.sweeper import Sweeper


def test_a_job_that_cannot_be_read_keeps_no_other_from_following(
    lab: Lab, database_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings may be of an older version."""
    settings = StoreSettings(database_url=database_url, broker_url=broker_url, blob_dir=lab.blob_dir)
    for name in ("database_url", "broker_url", "blob_dir"):
        monkeypatch.setenv(f"LAMBDAHAT_{name.upper()}", str(getattr(settings, name)))
    series = lab.series()
    lab.checkpoint(series, 0)
    broken, sound = (lab.job(series, follow=True) for _ in range(2))
    with lab.engine.begin() as connection:
        connection.execute(text("""UPDATE jobs SET settings = '{"measures": 7}' WHERE id = :job"""), {"job": broken})
    lab.checkpoint(series, 10)
    Sweeper(lab.engine, settings).round()

    def taken(job: str) -> list[int]:
        with lab.engine.connect() as connection:
            asked = "SELECT jsonb_array_length(checkpoint_ids) FROM shards WHERE job_id = :job AND kind = 'measure'"
            return list(connection.scalars(text(asked), {"job": job}))

    try:
        assert (sum(taken(broken)), sum(taken(sound))) == (1, 2)
    finally:
        for job in (broken, sound):
            lab.post(f"/v1/jobs/{job}/cancel")
