"""Who may do what."""

import time
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from store import keys
from store.tables import ApiKey
from tests.api.lab import SPEC, Lab, refused


def ask(lab: Lab, authorization: str | None, method: str = "GET", path: str = "/v1/whoami") -> httpx.Response:
    """A request with this header instead of the lab's key."""
    headers = {} if authorization is None else {b"Authorization": authorization.encode("latin-1")}
    return httpx.request(method, f"{lab.base_url}".rstrip("/") + path, headers=headers)


def test_whoami(lab: Lab) -> None:
    answer = lab.get("/v1/whoami").json()
    assert answer["tenant"]["id"] == lab.tenant_id
    assert answer["key"]["id"] == f"key_{lab.api_key.split('_')[1]}"
    assert answer["key"]["scopes"] == ["read", "write", "admin"]
    assert lab.api_key.split("_")[2] not in str(answer)


@pytest.mark.parametrize(
    "path",
    ["/v1/whoami", "/v1/series", "/v1/jobs", "/v1/models", "/v1/datasets", "/v1/jobs/x", "/v1/series/x/curve"],
)
def test_nothing_without_a_key(lab: Lab, path: str) -> None:
    response = ask(lab, None, path=path)
    assert refused(response, 401, "unauthorized")["hint"]
    assert response.headers["www-authenticate"] == "Bearer"


def test_a_typo_is_told_from_a_key_that_is_gone(lab: Lab) -> None:
    changed = "0" if lab.api_key[-10] != "0" else "1"
    typo = f"{lab.api_key[:-10]}{changed}{lab.api_key[-9:]}"
    assert "mistyped" in refused(ask(lab, f"Bearer {typo}"), 401, "unauthorized")["detail"]
    key_id = f"key_{lab.api_key.split('_')[1]}"
    with Session(lab.engine) as session, session.begin():
        keys.revoke_key(session, key_id)
    deadline = time.monotonic() + 2  # somebody else did it: the API may take it for a second
    while (response := lab.get("/v1/whoami")).is_success:
        assert time.monotonic() < deadline
    assert "revoked" in refused(response, 401, "unauthorized")["detail"]


def test_a_key_with_anothers_secret_is_refused(lab: Lab, other_lab: Lab) -> None:
    """Both halves are real and the checksum is right, yet they don't belong together."""
    rest = f"{lab.api_key.rsplit('_', 1)[0]}_{other_lab.api_key.rsplit('_', 1)[1][:32]}"
    forged = rest + keys.checksum(rest)
    assert "unknown" in refused(ask(lab, f"Bearer {forged}"), 401, "unauthorized")["detail"]


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Basic bGg6eA==", "Bearer lh_x_y", "Bearer " + "x" * 5000, "Bearer lh_\u00ff", "lh_"],
)
def test_what_is_no_key(lab: Lab, header: str) -> None:
    refused(ask(lab, header), 401, "unauthorized")


def test_scopes(lab: Lab) -> None:
    with Session(lab.engine) as session, session.begin():
        reader = keys.create_key(session, lab.tenant_id, "reads", ["read"])
        writer = keys.create_key(session, lab.tenant_id, "writes", ["write"])
    assert ask(lab, f"Bearer {reader}").json()["key"] == {
        "id": f"key_{reader.split('_')[1]}",
        "name": "reads",
        "scopes": ["read"],
    }
    before = lab.everything()
    for method, path in (
        ("POST", "/v1/jobs/x/cancel"),
        ("DELETE", "/v1/series/x"),
        ("PUT", f"/v1/blobs/{'0' * 64}"),
    ):
        assert "'write'" in refused(ask(lab, f"Bearer {reader}", method, path), 403, "forbidden")["detail"]
    refused(ask(lab, f"Bearer {writer}"), 403, "forbidden")
    assert lab.everything() == before


def test_only_a_hash_of_the_secret_is_stored(lab: Lab) -> None:
    with Session(lab.engine) as session:
        key = session.scalars(select(ApiKey).where(ApiKey.tenant_id == lab.tenant_id)).one()
    secret = lab.api_key.split("_")[2][:32]
    assert secret not in str(vars(key))
    assert len(key.secret_hash) == 64


def test_the_checksum_never_changes() -> None:
    """Keys that were given out must stay valid."""
    assert keys.checksum("lh_0_0") == "3IOAFf"


def make(lab: Lab, *scopes: str) -> dict[str, Any]:
    response = lab.post("/v1/api-keys", json={"name": "another", "scopes": list(scopes)})
    assert response.status_code == 201
    return response.json()


def test_a_key_is_made_shown_once_used_and_revoked(lab: Lab) -> None:
    made = make(lab, "read")
    assert ask(lab, f"Bearer {made['key']}").json()["key"] == {"id": made["id"], "name": "another", "scopes": ["read"]}
    listed = lab.get("/v1/api-keys").json()["data"]
    assert [key["id"] for key in listed] == [made["id"], f"key_{lab.api_key.split('_')[1]}"]
    assert listed[0] == {name: value for name, value in made.items() if name != "key"}
    secret = made["key"].split("_")[2]
    assert secret[:32] not in str(listed)
    with Session(lab.engine) as session:
        kept = session.get_one(ApiKey, made["id"])
        assert secret[:32] not in str(vars(kept))
    assert lab.delete(f"/v1/api-keys/{made['id']}").status_code == 204
    assert "revoked" in refused(ask(lab, f"Bearer {made['key']}"), 401, "unauthorized")["detail"]
    assert lab.get("/v1/api-keys").json()["data"][0]["revoked_at"] is not None
    assert lab.delete(f"/v1/api-keys/{made['id']}").status_code == 204


@pytest.mark.parametrize(
    ("scopes", "may_read", "may_write"), [(["read"], True, False), (["read", "write"], True, True)]
)
def test_a_key_may_do_what_its_scopes_say(lab: Lab, scopes: list[str], may_read: bool, may_write: bool) -> None:
    key = make(lab, *scopes)["key"]
    headers = {"Authorization": f"Bearer {key}"}
    assert lab.get("/v1/series", headers=headers).is_success == may_read
    body = {"name": "m", "spec": SPEC}
    posted = lab.post("/v1/models", json=body, headers=headers)
    assert posted.is_success == may_write
    for response in (
        lab.post("/v1/api-keys", json={"name": "x", "scopes": ["admin"]}, headers=headers),
        lab.get("/v1/api-keys", headers=headers),
        lab.delete(f"/v1/api-keys/key_{lab.api_key.split('_')[1]}", headers=headers),
    ):
        assert "admin" in refused(response, 403, "forbidden")["detail"]


def test_the_last_key_that_makes_keys_stays(lab: Lab) -> None:
    mine = f"key_{lab.api_key.split('_')[1]}"
    make(lab, "read", "write")
    assert refused(lab.delete(f"/v1/api-keys/{mine}"), 409, "last_admin_key")["hint"]
    make(lab, "admin")
    assert lab.delete(f"/v1/api-keys/{mine}").status_code == 204
    refused(lab.get("/v1/whoami"), 401, "unauthorized")


def test_another_tenants_key_is_not_there(lab: Lab, other_lab: Lab) -> None:
    made = make(other_lab, "read")
    refused(lab.delete(f"/v1/api-keys/{made['id']}"), 404, "not_found")
    assert ask(lab, f"Bearer {made['key']}").status_code == 200
    assert len(lab.get("/v1/api-keys").json()["data"]) == 1


@pytest.mark.parametrize("scopes", [[], ["root"], ["read"] * 4, "read", None])
def test_scopes_that_there_are_not(lab: Lab, scopes: Any) -> None:
    refused(lab.post("/v1/api-keys", json={"name": "x", "scopes": scopes}), 422, "invalid_request")
