"""Every fault of the table has a test, and no test names another."""

from __future__ import annotations

import ast
from pathlib import Path

import yaml

TESTS = Path(__file__).parents[1]


def marked_faults(path: Path) -> list[int]:
    """Numbers in the `fault` marks of a test file."""
    return [
        argument.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "fault"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    ]


def test_every_fault_has_a_test() -> None:
    table = yaml.safe_load((TESTS / "faults" / "faults.yaml").read_text(encoding="utf-8"))
    known = [number for rows in table.values() for number in rows]
    assert known == sorted(set(known))
    assert set(known) == {n for path in TESTS.rglob("test_*.py") for n in marked_faults(path)}
