"""Every setting is documented, with its name."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from store.settings import StoreSettings

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.mark.parametrize("name", StoreSettings.model_fields)
def test_it_is_in_the_guide_to_operation(name: str) -> None:
    assert f"| `LAMBDAHAT_{name.upper()}` |" in OPERATIONS.read_text()
    assert StoreSettings.model_fields[name].description


def test_networks_come_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "BROKER_URL", "BLOB_DIR"):
        monkeypatch.setenv(f"LAMBDAHAT_{name}", "x")
    assert StoreSettings.model_validate({}).webhook_networks == ()
    monkeypatch.setenv("LAMBDAHAT_WEBHOOK_NETWORKS", "10.0.0.0/8, fd00::/8,")
    found = StoreSettings.model_validate({}).webhook_networks
    assert [str(network) for network in found] == ["10.0.0.0/8", "fd00::/8"]
    monkeypatch.setenv("LAMBDAHAT_WEBHOOK_NETWORKS", "10.0.0.1/8")
    with pytest.raises(ValidationError, match="not a valid IPv4 network"):
        StoreSettings.model_validate({})
