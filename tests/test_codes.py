"""docs/codes.md has every code that the service may give, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = {"InputError": 0, "ConflictError": 0, "Failure": 0, "__init__": 0, "render": 1}
"""Which argument of a call is a code."""


def codes_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield from texts(node.args[PLACES[name] :][:1] if name in PLACES else [])
        elif isinstance(node, ast.Dict):
            named = [value for key, value in zip(node.keys, node.values, strict=True) if list(texts([key])) == ["code"]]
            yield from texts(named)


def texts(nodes: list[ast.expr | None] | list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def in_the_code() -> set[str]:
    from api.problems import HINTS

    found = {code for code, _ in HINTS.values()} | {"http_error"}
    for folder in ("api", "store", "worker", "llc"):
        for path in (ROOT / folder).rglob("*.py"):
            if path != ROOT / "llc" / "exact.py":  # known answers, which nobody asks for over HTTP
                found |= set(codes_of(ast.parse(path.read_text())))
    return {code for code in found if re.fullmatch(r"[a-z][a-z_]+", code)}


def in_the_guide() -> set[str]:
    text = (ROOT / "docs" / "codes.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {
        code
        for row in [*rows, text.partition("## Of the operator's commands")[2]]
        for code in re.findall(r"`([a-z]+_?[a-z_]*)`", row)
    } - {
        "backup",
        "restore",
    }


def test_every_code_is_in_the_guide() -> None:
    assert len(in_the_code()) > 50
    assert in_the_code() == in_the_guide()
