"""Write `doc/settings.md` from the schema, and who reads each setting from the source.

`--check` tells whether either drifted.
"""

from __future__ import annotations

import ast
import json
import sys
from collections import defaultdict
from pathlib import Path

from cifar_cli.config.explain import Explanation, explain, section_meaning
from cifar_cli.config.migration import ALL_DROPPED
from cifar_cli.config.settings import SECTIONS, SETTINGS, TAGS, variants

PACKAGE = Path(__file__).parents[1] / "cifar_cli"
TARGET = Path(__file__).with_name("settings.md")
READERS = PACKAGE / "config" / "readers.json"
HEADER = """\
# Settings

<!-- Written by doc/generate_settings.py (make docs) from config/schema.py; do not edit. -->

Each setting has a dotted path. Use it in YAML, with `--set`, or as an environment variable:
`CIFAR_RESNET_OPTIM__MAX_LR=0.01` sets `optim.max_lr`. `cifar-resnet recipes explain KEY` shows one
setting, and which modules read it. The defaults are those of the recipe `baseline`.

Some sections have a name. A setting that belongs to another name has no effect and is refused.
"""
CLASSES = {cls.__name__: name for name in SECTIONS for cls in variants(name).values()}
CLASSES |= {f"{name.title()}Config": name for name in SECTIONS}


def readers() -> dict[str, list[str]]:
    """The modules that read each setting as an attribute of a configuration or of a section."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if not name.startswith("config."):
            for key in _settings_read(ast.parse(path.read_text(encoding="utf-8"))):
                found[key].append(name)
    return {key: found[key] for key in SETTINGS}


def _settings_read(module: ast.Module) -> set[str]:
    names = _sections_by_name(module)
    read = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            base = ast.unparse(node.value)
            last = base.rpartition(".")[2]
            if base in names or ("." in base and last in SECTIONS):
                read.add(f"{names.get(base, last)}.{node.attr}")
            elif last in ("config", "settings"):
                read.add(node.attr)
    return read & set(SETTINGS)


def _sections_by_name(module: ast.Module) -> dict[str, str]:
    """The section that a variable, or an attribute of `self`, of a module stands for."""
    known: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.arg) and isinstance(node.annotation, ast.Name):
            if section := CLASSES.get(node.annotation.id):
                known |= {node.arg: section, f"self.{node.arg}": section}
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
            target, section = node.targets[0], node.value.attr
            known |= {ast.unparse(target): section} if section in SECTIONS else {}
    return known


def text() -> str:
    """The whole document."""
    parts = [HEADER]
    top = [entry for key in SETTINGS if "." not in key for entry in explain(key)]
    parts += ["## Top level\n", *_table(top, named=False)]
    for section in SECTIONS:
        parts.append(f"## `{section}`\n")
        if section not in TAGS:
            parts.append(f"{section_meaning(section)}\n")
        parts += _table(explain(section), named=section in TAGS)
    parts += ["## No longer there\n", "| setting | why |\n|---|---|"]
    parts += [f"| `{key}` | {dropped.why} |" for key, dropped in ALL_DROPPED.items()]
    return "\n".join(parts) + "\n"


def _table(entries: list[Explanation], named: bool) -> list[str]:
    columns = ["setting", *(["belongs to"] if named else []), "default", "values", "meaning"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for entry in entries:
        belongs = [", ".join(f"`{name}`" for name in entry.belongs_to)] if named else []
        default = f"`{json.dumps(entry.default)}`"
        cells = [f"`{entry.key}`", *belongs, default, entry.values, entry.meaning]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    """Write both files, or compare them."""
    files = {READERS: json.dumps(readers(), indent=1) + "\n", TARGET: ""}
    if "--check" not in sys.argv:
        READERS.write_text(files[READERS], encoding="utf-8")
    files[TARGET] = text()
    for file, content in files.items():
        if "--check" not in sys.argv:
            file.write_text(content, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != content:
            raise SystemExit(f"{file.name} does not match the source: run make docs.")


if __name__ == "__main__":
    main()
