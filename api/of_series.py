"""Which job of a series is asked about."""

from typing import Annotated

from fastapi import Query
from sqlalchemy.orm import Session

from store.errors import NotFoundError
from store.owned import find
from store.results import newest_job_with_results
from store.tables import Job, Series

JobId = Annotated[str | None, Query(description="Of this job; else of the newest that has results.")]


def chosen_job(session: Session, tenant_id: str, series_id: str, job_id: str | None) -> Job | None:
    """The job asked for, or the newest of the series that has results. Raises: NotFoundError."""
    series = find(session, Series, tenant_id, series_id)
    if job_id is None:
        return newest_job_with_results(session, series.id)
    job = find(session, Job, tenant_id, job_id)
    if job.series_id != series.id:
        raise NotFoundError(f"job of series '{series.id}' called", job_id, f"it is a job of series '{job.series_id}'")
    return job
