"""Every setting is documented, with its name."""

from pathlib import Path

import pytest

from store.settings import StoreSettings

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.mark.parametrize("name", StoreSettings.model_fields)
def test_it_is_in_the_guide_to_operation(name: str) -> None:
    assert f"| `LAMBDAHAT_{name.upper()}` |" in OPERATIONS.read_text()
    assert StoreSettings.model_fields[name].description
