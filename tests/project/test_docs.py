"""The pages for users: short sentences, links that resolve, commands that work as printed."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import Answer

from cifar_cli import load_config
from cifar_cli.cli.app import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDES = [
    README,
    ROOT / "CONTRIBUTING.md",
    *(
        ROOT / "doc" / f"{name}.md"
        for name in ("guide", "data", "recipes", "speed", "benchmarks", "security")
    ),
]
"""Pages that are written by hand and for users."""
PAGES = [README, *ROOT.glob("[A-Z]*.md"), *(ROOT / "doc").glob("*.md"), ROOT / "examples/README.md"]
MOST_WORDS = 30
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
USERS_EXAMPLES = (
    "cifar-resnet summary",
    "cifar-resnet find-lr --end-lr 10",
    "cifar-resnet train --max-lr 0.0465 --div-factor 2000",
    "cifar-resnet misclassified --n 10",
)


def sentences(markdown: str) -> Iterator[str]:
    """Those of paragraphs and list items, each code span as one word."""
    text = FENCE.sub("\n", markdown)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("|", "#", "!"))]
    text = re.sub(r"`[^`]+`", "code", "\n".join(lines))
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    for block in re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) ", text):
        for sentence in re.split(r"(?<=[.!?])\s+|(?<=[.!?]\))\s+", " ".join(block.split())):
            if sentence:
                yield sentence


def commands(page: Path) -> list[str]:
    """Every `cifar-resnet` command in the page's code blocks, continued lines joined."""
    code = "\n".join(block for _, block in FENCE.findall(page.read_text(encoding="utf-8")))
    lines = code.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if "cifar-resnet " in line]
    return [
        shlex.join(line[line.index("cifar-resnet") :]) for line in words if "cifar-resnet" in line
    ]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the page's headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_has_at_most_200_lines_and_the_users_examples() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200
    assert set(USERS_EXAMPLES) <= set(commands(README))


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_no_sentence_of_a_page_for_users_has_more_than_30_words(page: Path) -> None:
    found = list(sentences(page.read_text(encoding="utf-8")))
    assert len(found) > 5
    assert [s for s in found if len(re.findall(r"[\w.,%/-]*\w[\w.,%/-]*", s)) > MOST_WORDS] == []


def test_sentences_are_told_apart_from_code_and_tables() -> None:
    page = "# No\n\n```\ncode. here\n```\nOne `a b. c` ([x](y. z)). Two\nlines.\n- item\n| a. b |"
    assert list(sentences(page)) == ["One code (x).", "Two lines.", "item"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_printed_commands_and_their_options_exist(page: Path) -> None:
    root: Any = typer.main.get_command(app)
    for line in commands(page):
        command, words = root, shlex.split(line)[1:]
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        if command is root:
            known = ["--version"], ["--help"], ["--install-completion", "bash"]
            assert words in known, line
        else:
            command.make_context(line, words)  # raises if an option or a value is wrong


def test_the_pages_show_every_command() -> None:
    root: Any = typer.main.get_command(app)
    shown = {shlex.split(line)[1] for page in GUIDES for line in commands(page)}
    assert set(root.commands) <= shown


def test_the_commands_of_the_readme_work_as_printed(
    cli: Callable[..., Answer],
    class_folders: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With fewer images and channels by the environment, the commands unchanged."""
    class_folders(counts=(40, 5), size=(48, 40), name="photos")
    small = {"DATA": "shapes", "DATA__LIMIT_TRAIN": "100", "DATA__LIMIT_VAL": "50", "DEVICE": "cpu"}
    for name, value in (small | {"TRAIN__BATCH_SIZE": "32", "TRAIN__EPOCHS": "1"}).items():
        monkeypatch.setenv(f"CIFAR_RESNET_{name}", value)
    for line in dict.fromkeys(commands(README)):
        words = shlex.split(line)[1:]
        if {"find-lr", "auto"} & set(words):
            continue  # two LR range tests of 200 steps, which test_examples.py runs
        given = dict(itertools.pairwise(words))
        config = load_config(given.get("--recipe"), data=given.get("--data"), env={})
        is_speed = config.model.name == "speed_resnet"
        with monkeypatch.context() as patch:
            width = ("WIDTHS", "[4,4,4]") if is_speed else ("WIDTH", "4")
            patch.setenv(f"CIFAR_RESNET_MODEL__{width[0]}", width[1])
            answer = cli(*words)
        assert answer.code == 0, (line, answer.err)


def test_the_python_of_the_guide_works_as_printed(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"LIMIT_TRAIN": "100", "LIMIT_VAL": "50"}.items():
        monkeypatch.setenv(f"CIFAR_RESNET_DATA__{name}", value)
    monkeypatch.setenv("CIFAR_RESNET_DEVICE", "cpu")
    blocks = FENCE.findall((ROOT / "doc" / "guide.md").read_text(encoding="utf-8"))
    programs = [code for language, code in blocks if language == "python"]
    assert programs
    for program in programs:
        exec(compile(program, "guide.md", "exec"), {})
    assert 0 <= float(capsys.readouterr().out) <= 1


def test_security_names_tests_that_exist() -> None:
    text = (ROOT / "doc" / "security.md").read_text(encoding="utf-8")
    tests = {
        path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py")
    }
    named = re.findall(r"`(test_\w+)`(?:: ([^`|]+))?", text)
    assert len(named) > 10
    for file, titles in named:
        assert file in tests, file
        for title in (part.strip() for part in titles.split(";")):
            name = "_".join(title.lower().split())
            assert not name or f"def test_{name}(" in tests[file], title
