"""Faults in the middle of jobs. These end all the same, with exactly one result for each checkpoint and measure, and
with the numbers of a job that nobody disturbed. `make soak` does this for long.
"""

from typing import Any

import pytest

import lambdahat
from lambdahat.objects import Series
from tests.chaos.conftest import CHECKPOINTS
from tests.chaos.faults import FAULTS
from tests.chaos.soak import ChaosError, compare, numbers, torment, undisturbed, wait
from tests.chaos.world import FAKETIME, MEASURES, World

SHORT = (
    "kill child",
    "kill worker",
    "kill sweeper",
    "kill api",
    "kill postgres",
    "kill valkey",
    "flush broker",
    "freeze worker",
    "database half-open",
    "database resets",
    "broker refuses",
    *(("clock set forward", "clock set back") if FAKETIME.exists() else ()),
)


@pytest.fixture(scope="module")
def reference(world: World, series: Series) -> dict[tuple[int, str], Any]:
    found = undisturbed(world, series)
    assert len(found) == CHECKPOINTS * len(MEASURES)
    return found


def test_shards_and_added_chains_change_no_number(
    world: World, client: lambdahat.Client, series: Series, reference: dict[tuple[int, str], Any]
) -> None:
    more = {**MEASURES, "llc": {**MEASURES["llc"], "num_chains": 5}}
    together = client.run(series, MEASURES, checkpoints_per_shard=CHECKPOINTS)
    with_a_chain = client.run(series, more, checkpoints_per_shard=3)
    for job in (together, with_a_chain):
        wait(world, job)
        for (step, measure), (quantities, details, *_) in numbers(world, job).items():
            if measure == "llc":
                one_percent = 0.01 * reference[step, "llc"][0]["llc"]["std_error"]
                chains = reference[step, "llc"][1]["per_chain"]
                assert details["per_chain"][:4] == pytest.approx(chains, abs=one_percent, rel=0)
            else:
                assert quantities == reference[step, measure][0]


def test_jobs_survive(world: World, series: Series, reference: dict[tuple[int, str], Any]) -> None:
    outcome = torment(world, series, reference, seed=0, count=len(SHORT), kinds=SHORT)
    assert outcome.error == ""
    assert set(outcome.faults) == set(SHORT) <= set(FAULTS)


def test_a_result_that_is_wrong_or_lost_would_be_seen(
    world: World, series: Series, reference: dict[tuple[int, str], Any]
) -> None:
    """The comparison can fail."""
    job = world.run(series)
    wait(world, job)
    compare(world, job, reference)
    last = f"SELECT max(id) FROM checkpoints WHERE series_id = '{series.id}'"
    where = f"job_id = '{job.id}' AND measure = 'llc' AND checkpoint_id IN ({last})"
    change = "quantities = jsonb_set(quantities, '{llc,value}', '1.5')"
    assert world.query(f"UPDATE results SET {change} WHERE {where} RETURNING 1")
    with pytest.raises(ChaosError, match="1 of 24 results differ"):
        compare(world, job, reference)
    assert world.query(f"DELETE FROM results WHERE {where} RETURNING 1")
    with pytest.raises(ChaosError, match="missing"):
        compare(world, job, reference)
