"""Who may do what."""

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from store import keys
from store.tables import ApiKey
from tests.api.lab import Lab, refused


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
    assert "revoked" in refused(lab.get("/v1/whoami"), 401, "unauthorized")["detail"]


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
