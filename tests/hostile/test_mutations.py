"""A part of what `make fuzz` does."""

from pathlib import Path

from tests.hostile.files import good_files
from tests.hostile.mutations import BATCH, mutations, read, read_batch


def test_no_damage_is_a_crash(tmp_path: Path) -> None:
    answers, faults, _ = read_batch(seed=1, count=2 * BATCH, folder=tmp_path)
    assert faults == []
    assert answers.total() == 2 * BATCH
    assert {"pt: bad_torch_file", "pt: taken", "safetensors: bad_safetensors", "safetensors: taken"} <= answers.keys()
    assert list(tmp_path.iterdir()) == []


def test_the_seed_decides() -> None:
    assert list(mutations(3, 50)) == list(mutations(3, 50)) != list(mutations(4, 50))


def test_undamaged_they_are_taken(tmp_path: Path) -> None:
    for name, content in good_files().items():
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name, name) == "taken"
