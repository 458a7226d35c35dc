"""`python -m tests.hostile.mutations`: good files, damaged at random, given to the readers and posted over HTTP.

Each is to be refused with a code, or taken with the layout of the file that it was made of; nothing else may happen.
The readers run in processes of limited memory. The service is a real one whose memory is measured, and to which the
hostile files of `tests.hostile.files` are posted first.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

import psutil

from llc.checkpoints import check_checkpoint, read_header, read_tensors
from llc.data import describe, describe_file, read_arrays
from llc.errors import InputError
from llc.layout import Layout
from llc.models import MODEL_SPEC
from llc.torch_files import convert, is_torch_file
from tests.api.lab import SPEC, Lab
from tests.hostile.files import FILES, good_files
from tests.hostile.service import Watched, service

MEMORY_BYTES = 256 * 2**20
BATCH = 1000
_LAYOUT = MODEL_SPEC.validate_python(SPEC).layout()


def mutated(content: bytes, random: Random, others: list[bytes]) -> bytes:
    """With one to four changes."""
    raw = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        if not raw:
            break
        at = random.randrange(min(len(raw), random.choice((16, 400, 10**9))))  # mostly where the structure is
        match random.randrange(9):
            case 0:  # a bit
                raw[at] ^= 1 << random.randrange(8)
            case 1:  # a byte, often one that is special somewhere
                raw[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, *b'"\\[]{},.:0-9eNI()tRQ\x85}', random.randrange(256)))
            case 2:  # cut
                del raw[at:]
            case 3:  # a piece out
                del raw[at : at + random.choice((1, 2, 4, 8, 30))]
            case 4:  # a piece in
                raw[at:at] = random.randbytes(random.choice((1, 2, 4, 8, 30)))
            case 5:  # a piece once more
                raw[at:at] = raw[at : at + random.choice((1, 8, 50, 500))]
            case 6:  # a piece of another file
                other = random.choice(others)
                start = random.randrange(len(other))
                raw[at : at + random.choice((0, 8, 50))] = other[start : start + random.choice((1, 8, 50, 500))]
            case 7:  # a length or an offset
                width = random.choice((2, 4, 8))
                value = random.choice((0, 1, 2**31, 2**63, 2 ** (8 * width) - 1, len(raw), random.getrandbits(64)))
                near = int.from_bytes(raw[at : at + width], "little") + random.choice((-1, 1, 8))
                number = random.choice((value, near)) % 2 ** (8 * width)
                raw[at : at + width] = number.to_bytes(width, "little")
            case 8:  # a decimal
                digits = [i for i in range(len(raw)) if raw[i : i + 1].isdigit()]
                if digits:
                    i = random.choice(digits)
                    number = random.choice((b"-1", b"1e3", b"NaN", b"9" * 30, b"0", b"true", b"1.5", b"7"))
                    raw[i : i + 1] = number
    return bytes(raw)


def mutations(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """(name of the good file, what became of it)."""
    random, good = Random(seed), good_files()
    names = sorted(good)
    for _ in range(count):
        name = random.choice(names)
        yield name, mutated(good[name], random, list(good.values()))


def read(path: Path, name: str) -> str:
    """What a reader says of a file: `taken`, or a code. Raises: whatever is a fault of the reader."""
    try:
        if name.startswith("data"):
            assert describe_file(path) == describe(read_arrays(path))
        elif is_torch_file(path):
            target = path.with_suffix(".converted")
            with path.open("rb") as source, target.open("wb") as file:
                convert(source, file, path.name)
            check_checkpoint(target, _LAYOUT)
            _same_layout(target, _LAYOUT)
        else:
            check_checkpoint(path, _LAYOUT)
            _same_layout(path, _LAYOUT)
    except InputError as error:
        return error.code
    return "taken"


def _same_layout(path: Path, layout: Layout) -> None:
    assert {name: entry.shape for name, entry in read_header(path).items()} == dict(layout.shapes)
    assert all(array.shape == layout.shapes[name] for name, array in read_tensors(path).items())


def read_batch(seed: int, count: int, folder: Path | None = None) -> tuple[Counter[str], list[str], int]:
    """(how often each answer came, faults, bytes by which the process grew) for the mutations of a seed."""
    answers: Counter[str] = Counter()
    faults: list[str] = []
    before = _resident()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "file"
        for i, (name, content) in enumerate(mutations(seed, count)):
            path.write_bytes(content)
            try:
                answers[f"{Path(name).suffix[1:]}: {read(path, name)}"] += 1
            except Exception as error:
                faults.append(f"mutation {i} of seed {seed} ({name}): {type(error).__name__}: {str(error)[:300]}")
    return answers, faults, _resident() - before


def _resident() -> int:
    return psutil.Process().memory_info().rss


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))


def in_process(seed: int, count: int) -> tuple[Counter[str], list[str], int]:
    """As `read_batch`, in processes of limited memory, one after the other. One that dies is a fault."""
    answers: Counter[str] = Counter()
    faults: list[str] = []
    growth = 0
    with ProcessPoolExecutor(1, initializer=_limit, max_tasks_per_child=20) as pool:
        for first in range(0, count, BATCH):
            try:
                batch = pool.submit(read_batch, seed * 10**6 + first, min(BATCH, count - first)).result(timeout=600)
            except Exception as error:
                faults.append(f"the process of seed {seed * 10**6 + first} ended: {error!r}")
                break
            answers, faults, growth = answers + batch[0], faults + batch[1], max(growth, batch[2])
    return answers, faults, growth


def post(lab: Lab, series: str, name: str, content: bytes, step: int) -> tuple[str, str]:
    """(answer, fault) of a file that is uploaded and made what its name says."""
    blob = lab.upload(content)
    if name.startswith("data"):
        answer = lab.post("/v1/datasets", json={"name": "data", "blob": blob})
    else:
        answer = lab.post(f"/v1/series/{series}/checkpoints", json={"step": step, "blob": blob})
    if answer.status_code == 201:
        return "taken", ""
    problem = answer.json()
    if not 400 <= answer.status_code < 500 or blob not in problem["detail"] or not problem["code"]:
        return "", f"{name}, {answer.status_code}: {answer.text[:300]}"
    return problem["code"], ""


def over_http(seed: int, count: int, watched: Watched) -> tuple[Counter[str], list[str]]:
    """The hostile files, and then mutations, to a service."""
    lab = watched.lab
    series = lab.series()
    answers: Counter[str] = Counter()
    faults: list[str] = []
    hostile = [(kind, build()) for build in FILES.values() for kind in ("checkpoint", "data")]
    for step, (name, content) in enumerate([*hostile, *mutations(seed, count)]):
        answer, fault = post(lab, series, name, content, step)
        if step < len(hostile) and answer == "taken":
            fault = f"hostile file {step} was taken"
        answers[answer] += not fault
        faults += [fault] if fault else []
    return answers, faults


def main() -> int:
    """0 if nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.mutations", description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="mutations given to the readers")
    parser.add_argument("--http", type=int, default=2_000, help="mutations posted to a service")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    answers, faults, growth = in_process(arguments.seed, arguments.count)
    print(f"{arguments.count} mutations in {time.monotonic() - start:.0f} s, faults {len(faults)}, "
          f"growth of a process in {BATCH} files at most {growth / 2**20:.1f} MB", flush=True)  # fmt: skip
    print(json.dumps(dict(sorted(answers.items())), indent=2), flush=True)
    if arguments.http:
        start = time.monotonic()
        with service() as watched:
            found, more = over_http(arguments.seed + 1, arguments.http, watched)
            faults += more + watched.crashes
            print(f"{found.total()} files over HTTP in {time.monotonic() - start:.0f} s, faults {len(more)}; the "
                  f"service grew by at most {watched.growth / 2**20:.1f} MB, its readers had at most "
                  f"{watched.child_peak / 2**20:.1f} MB", flush=True)  # fmt: skip
            print(json.dumps(dict(sorted(found.items())), indent=2))
            if max(watched.growth, watched.child_peak) > MEMORY_BYTES:
                faults.append("the service took too much memory")
    print("\n".join(faults[:50]), file=sys.stderr)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
