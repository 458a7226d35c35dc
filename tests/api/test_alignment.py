"""What several series have in common, over HTTP."""

from typing import Any
from xml.etree import ElementTree

import pytest
from httpx import Response
from sqlalchemy import text

from api.alignment import MAX_SERIES, MAX_TRANSITIONS
from tests.api.lab import Lab, created, refused
from tests.api.worked import stage, work

STEPS = (0, 10, 100, 1000)
LOSSES = {0: 3.0, 10: 2.0, 100: 1.0, 1000: 0.9}

CHANGE_LOSS = text(
    """
    UPDATE results SET quantities = jsonb_set(quantities, '{loss,value}', to_jsonb(cast(:loss AS float)))
    FROM checkpoints c WHERE c.id = checkpoint_id AND measure = 'loss' AND step = :step AND c.tenant_id = :tenant
    """
)


def rise(ordinal: int, from_step: int, to_step: int, delta_llc: float = 10.0) -> dict[str, Any]:
    return stage(ordinal, "transition", "A", from_step, to_step) | {"delta_llc": delta_llc}


def fall(ordinal: int, from_step: int, to_step: int, delta_llc: float = -4.0) -> dict[str, Any]:
    return stage(ordinal, "transition", "B", from_step, to_step) | {"delta_llc": delta_llc, "delta_loss": None}


def run(lab: Lab, name: str, stages: list[dict[str, Any]], **tags: Any) -> str:
    """A series whose job has read these stages."""
    series = lab.series(name)
    assert lab.patch(f"/v1/series/{series}", json={"tags": tags}).is_success
    for step in STEPS:
        lab.checkpoint(series, step)
    read(lab, series, stages)
    return series


def read(lab: Lab, series: str, stages: list[dict[str, Any]]) -> str:
    job = lab.job(series)
    work(lab, job, dict.fromkeys(STEPS, 1.0), stages)
    return job


@pytest.fixture
def seeds(lab: Lab) -> list[str]:
    """Three alike, of which one learns in twice the time and an older job had read something else, and one that falls
    where the others rise.
    """
    alike = [
        run(lab, "first", [rise(0, 20, 60), fall(1, 200, 400)], what="seeds", seed=1),
        run(lab, "second", [fall(0, 1, 900)], what="seeds", seed=2),
        run(lab, "third", [rise(0, 21, 62, 12.0), stage(1, "plateau", None, 62, 210), fall(2, 210, 400)], what="seeds"),
    ]
    read(lab, alike[1], [rise(0, 40, 120, 11.0), fall(1, 400, 800)])
    return [*alike, run(lab, "odd", [fall(0, 20, 60), fall(1, 205, 410, -40.0)], what="odd")]


def aligned(lab: Lab, **asked: Any) -> dict[str, Any]:
    return created(lab.get("/v1/alignment", params=asked))


def test_the_common_sequence_and_the_outlier(lab: Lab, seeds: list[str]) -> None:
    found = aligned(lab, series=seeds)
    assert (found["axis"], found["without_stages"], found["without_loss"]) == ("step", [], [])
    first, second = found["common"]
    assert (first["support"], first["direction"], first["type"], first["types"]) == (3, "rise", "A", {"A": 3})
    assert (second["support"], second["direction"], second["type"]) == (4, "fall", "B")
    assert first["delta_llc"] == {"value": pytest.approx(11), "std_error": pytest.approx(3**-0.5)}
    assert first["delta_loss"] == {"value": pytest.approx(-0.5), "std_error": pytest.approx(0)}
    assert second["delta_loss"] is None
    assert first["from_step"] == {"median": 21, "low": 20, "high": 38}
    assert (first["from_loss"], first["to_loss"]) == (None, None)
    assert 0 <= first["spread"] < 0.1

    runs = found["runs"]
    assert [one["series"] for one in runs] == seeds
    assert [one["series_name"] for one in runs] == ["first", "second", "third", "odd"]
    assert [one["verdict"] for one in runs] == ["ok", "ok", "ok", "outlier"]
    assert [one["matched"] for one in runs] == [[0, 1], [0, 1], [0, 1], [None, 1]]
    assert runs[1]["tempo"] == pytest.approx(2, rel=0.1)
    assert runs[1]["job"] == lab.get(f"/v1/series/{seeds[1]}/transitions").json()["job"]
    odd = runs[3]
    assert (odd["missing"], odd["extra"], odd["reversed"]) == ([0], [0], [{"transition": 0, "common": 0}])
    assert [(far["transition"], far["common"], far["what"]) for far in odd["far"]] == [(1, 1, "large")]
    assert odd["reasons"][0] == "it lacks the rise of the LLC from about step 21 to 62, which 3 of 4 runs have"
    transition = odd["transitions"][1]
    (_, same) = lab.get(f"/v1/series/{seeds[3]}/transitions").json()["data"]
    names = ("id", "type", "from_step", "to_step", "delta_llc", "delta_loss")
    assert transition == {name: same[name] for name in names} | {"from_loss": None, "to_loss": None}


def test_it_does_not_matter_how_series_are_named(lab: Lab, seeds: list[str]) -> None:
    found = aligned(lab, series=seeds[:3])
    assert found == aligned(lab, series=[seeds[2], seeds[0], seeds[1], seeds[0]]) == aligned(lab, tag="what:seeds")
    assert aligned(lab, tag="what:seeds", series=seeds[3]) == aligned(lab, series=seeds)
    assert aligned(lab, tag=["what:seeds", "seed:1"], series=seeds[1]) == aligned(lab, series=seeds[:2])


def test_by_the_loss(lab: Lab, seeds: list[str]) -> None:
    """Between checkpoints it is on a straight line over log(step + 1)."""
    with lab.engine.begin() as connection:
        for step, loss in LOSSES.items():
            connection.execute(CHANGE_LOSS, {"step": step, "loss": loss, "tenant": lab.tenant_id})
    exact = run(lab, "exact", [rise(0, 10, 100), fall(1, 100, 1000)])
    unknown = run(lab, "unknown", [rise(0, 10, 100), fall(1, 100, 10_000)])
    found = aligned(lab, series=[*seeds[:3], unknown], axis="loss")
    assert found["without_loss"] == [unknown]
    assert [one["tempo"] for one in found["runs"]] == [None] * 3
    slow = found["runs"][1]["transitions"][0]
    assert slow["from_loss"] == pytest.approx(1.4066, abs=0.0001)
    assert slow["to_loss"] == pytest.approx(0.9921, abs=0.0001)
    first = found["common"][0]
    assert first["from_loss"]["low"] <= first["from_loss"]["median"] <= first["from_loss"]["high"] < 2
    assert first["from_step"]["median"] == 21
    at_checkpoints = aligned(lab, series=[exact, *seeds[:3]], axis="loss")["runs"][3]["transitions"]
    assert [(one["from_loss"], one["to_loss"]) for one in at_checkpoints] == [(0.25, 0.25), (0.25, 0.25)]


def test_a_series_without_stages_is_listed_and_one_without_transitions_takes_part(lab: Lab, seeds: list[str]) -> None:
    unread, flat = lab.series("unread"), run(lab, "flat", [stage(0, "plateau", None, 0, 1000)])
    found = aligned(lab, series=[*seeds[:3], flat, unread])
    assert found["without_stages"] == [unread]
    assert [one["series"] for one in found["runs"]] == [*seeds[:3], flat]
    assert (found["runs"][3]["missing"], found["runs"][3]["verdict"]) == ([0, 1], "outlier")
    nothing = aligned(lab, series=[unread, lab.series("unread, too")])
    assert (nothing["common"], nothing["runs"], len(nothing["without_stages"])) == ([], [], 2)


def test_transitions_without_a_number_take_no_part(lab: Lab, seeds: list[str]) -> None:
    strange = run(lab, "strange", [rise(0, 20, 60), fall(1, 70, 80) | {"delta_llc": None}, fall(2, 90, 95, 0.0)])
    assert len(aligned(lab, series=[*seeds, strange])["runs"][4]["transitions"]) == 1


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({}, "too_few_series"),
        ({"tag": "what:none"}, "too_few_series"),
        ({"tag": "what"}, "bad_tag"),
        ({"axis": "time"}, "invalid_request"),
        ({"tag": "a:\0"}, "invalid_request"),
        ({"tag": ["a:b"] * 17}, "invalid_request"),
    ],
)
def test_bad_questions(lab: Lab, asked: dict[str, Any], code: str) -> None:
    assert refused(lab.get("/v1/alignment", params=asked), 422, code)["hint"]


def test_too_few_and_too_many(lab: Lab) -> None:
    one = lab.series()
    assert (
        "1 series" in refused(lab.get("/v1/alignment", params={"series": [one, one]}), 422, "too_few_series")["detail"]
    )
    with lab.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO series (id, tenant_id, name, model_id, dataset_id, tags)"
                " SELECT 'ser_' || md5(id || n), tenant_id, 'run', model_id, dataset_id, '{\"seed\": true}'"
                " FROM series, generate_series(1, :count) n WHERE id = :like"
            ),
            {"count": MAX_SERIES, "like": one},
        )
    assert len(aligned(lab, tag="seed:true")["without_stages"]) == MAX_SERIES
    newest = lab.series("newest")  # which is not among the oldest that are read
    assert lab.patch(f"/v1/series/{one}", json={"tags": {"seed": True}}).is_success
    refused(lab.get("/v1/alignment", params={"tag": "seed:true", "series": newest}), 422, "too_many_series")
    assert lab.delete(f"/v1/series/{newest}").is_success
    assert lab.patch(f"/v1/series/{one}", json={"tags": {}}).is_success
    asked: dict[str, Any] = {"tag": "seed:true", "series": one}
    assert str(MAX_SERIES) in refused(lab.get("/v1/alignment", params=asked), 422, "too_many_series")["detail"]
    ids = [series["id"] for series in lab.get("/v1/series", params={"limit": 1000}).json()["data"]]
    assert len(ids) == MAX_SERIES + 1
    refused(lab.get("/v1/alignment", params={"series": ids}), 422, "too_many_series")


def test_a_series_of_too_many_transitions(lab: Lab, seeds: list[str]) -> None:
    many = run(lab, "many", [rise(k, 10 * k, 10 * k + 5) for k in range(MAX_TRANSITIONS + 1)])
    problem = refused(lab.get("/v1/alignment", params={"series": [*seeds, many]}), 422, "too_many_transitions")
    assert many in problem["detail"]


def test_unknown_series_and_those_of_another_lab(lab: Lab, other_lab: Lab, seeds: list[str]) -> None:
    for unknown in ("ser_x", "\0", seeds[0][:-1], "ser_" + "0" * 32, "x" * 90):
        refused(lab.get("/v1/alignment", params={"series": [*seeds, unknown]}), 404, "not_found")
    refused(other_lab.get("/v1/alignment", params={"series": seeds}), 404, "not_found")
    refused(other_lab.get("/v1/alignment", params={"tag": "what:seeds"}), 422, "too_few_series")
    own = other_lab.series()
    refused(other_lab.get("/v1/alignment", params={"tag": "what:seeds", "series": own}), 422, "too_few_series")
    refused(other_lab.get("/v1/alignment", params={"series": [own, seeds[0]]}), 404, "not_found")


def words(lab: Lab, **asked: Any) -> list[str]:
    """What stands in a picture, as text."""
    answer = lab.get("/v1/alignment/figure", params={"format": "svg", **asked})
    assert answer.headers["content-type"] == "image/svg+xml"
    tags = ElementTree.fromstring(answer.content).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(tag.itertext()).strip() for tag in tags]


def test_a_kept_answer_is_of_its_axis_and_of_now(lab: Lab) -> None:
    """Nothing of the loss is known at these ends."""
    two = [run(lab, name, [rise(0, 20_000, 30_000)]) for name in ("one", "two")]
    assert [len(aligned(lab, series=two, axis=axis)["runs"]) for axis in ("step", "loss", "step")] == [2, 0, 2]
    read(lab, two[0], [rise(0, 10, 20), rise(1, 30, 40)])
    assert [len(one["transitions"]) for one in aligned(lab, series=two)["runs"]] == [2, 1]


def test_the_picture(lab: Lab, seeds: list[str]) -> None:
    assert lab.patch(f"/v1/series/{seeds[0]}", json={"name": "<b>50 $\\alpha_{</b>"}).is_success
    more = run(lab, "more", [fall(0, 6, 9), rise(1, 20, 60), fall(2, 200, 400)])
    found = words(lab, series=[*seeds, more])
    assert {"in common", "<b>50 $\\alpha_{</b>", "second", "third", "odd (outlier)", "training step"} <= set(found)
    assert found.count("1") == 5  # over the common one and over those of four runs
    assert found.count("2") == 5
    assert "3" not in found
    assert [word for word in found if word in ("reversed", "2 large")] == ["reversed", "2 large"]
    assert {"tempo", "not in common", "missing"} <= set(found)
    png = lab.get("/v1/alignment/figure", params={"series": seeds})
    assert png.headers["content-type"] == "image/png"
    assert png.content.startswith(b"\x89PNG\r\n\x1a\n")


def test_a_kept_picture_is_of_now(lab: Lab, seeds: list[str]) -> None:
    first = words(lab, series=seeds)
    assert words(lab, series=seeds) == first
    assert lab.patch(f"/v1/series/{seeds[0]}", json={"name": "renamed"}).is_success
    assert "renamed" in words(lab, series=seeds)
    assert words(lab, series=seeds[:3]) != words(lab, series=seeds[:3], axis="loss")


def test_the_picture_by_the_loss(lab: Lab, seeds: list[str]) -> None:
    found = words(lab, series=seeds[:3], axis="loss")
    assert "loss" in found
    assert not {"training step", "tempo", "missing"} & set(found)


def test_no_picture(lab: Lab, other_lab: Lab, seeds: list[str]) -> None:
    def draw(by: Lab, **asked: Any) -> Response:
        return by.get("/v1/alignment/figure", params=asked)

    refused(draw(lab, series=[lab.series("1"), lab.series("2")]), 422, "nothing_to_draw")
    refused(draw(lab, series=seeds[0]), 422, "too_few_series")
    refused(draw(lab, series=seeds, format="exe"), 422, "invalid_request")
    refused(draw(other_lab, series=seeds), 404, "not_found")
