"""Faults of names, streams and the installation: what may stand on a terminal, and behind it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_FLAGS, Answer, tree
from PIL import Image

from cifar_cli.cli.failures import explain
from cifar_cli.output.console import Screen, print_json
from cifar_cli.output.streams import Stream, plain_warnings
from cifar_cli.output.tables import bench_table
from cifar_cli.text import NEAREST, printable

Cli = Callable[..., Answer]
posix = pytest.mark.skipif(os.name != "posix", reason="streams and signals of POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8, /dev/full")
COMMAND = [sys.executable, "-m", "cifar_cli"]
HOSTILE = (
    b"\x1b[2Jclear", b"\x1b]0;title\x07", b"two\r\nlines", b"[bold]x[bold] :dog:", b"a\x7f\x08b",
    "\u202egnp.exe".encode(), "\u2028\u0085é漢".encode(), b"\xff\xfe", b"\x9b31m",
)  # fmt: skip


def is_safe(text: str) -> bool:
    """Whether a text holds nothing but lines of characters that can be seen."""
    return all(printable(line) == line for line in text.split("\n")) and "🐶" not in text


def hostile_images() -> str:
    """A folder of such classes and files, in the current folder."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for number, name in enumerate(HOSTILE):
            folder = os.path.join(b"im\x1bages", split.encode(), name)  # noqa: PTH118 - of bytes
            os.makedirs(folder)  # noqa: PTH103
            for image in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                file = b"%d%d%s.png" % (number, image, HOSTILE[image])
                with open(os.path.join(folder, file), "wb") as stream:  # noqa: PTH118
                    Image.fromarray(pixels).save(stream, format="png")
    return "im\x1bages"


@linux
@pytest.mark.fault(69)
def test_no_command_prints_what_a_hostile_name_holds(cli: Cli, in_tmp: Path) -> None:
    data, run = hostile_images(), "r\x1b[31m\n:dog:[bold]"
    Path("runs").mkdir()
    short = [*TINY_FLAGS, "--data", data, "--epochs", 1]
    recipe = "\x1b[2J\n:dog:[red]"
    commands: list[list[object]] = [
        ["train", *short, "--run-dir", run],
        *[[name, run] for name in ("evaluate", "misclassified", "report", "plot")],
        ["evaluate", run, "--json"],
        ["preview-augs", "--data", data, "--n", 2, "--set", "augment.form=tensor"],
        ["find-lr", *short[:-2], "--num-iter", 18, "--set", "train.batch_size=4"],
        ["summary", "--data", data, "--depth", 1],
        ["recipes", "copy", "demo", recipe],
        ["summary", "--recipe", recipe, "--depth", 1],
    ]
    for command in commands:
        answer = cli(*command)
        assert answer.code == 0, answer.err
        assert is_safe(answer.out + answer.err), command
    # The newest run, whose name is no text that could be typed.
    os.rename(run, b"runs/r\xff\x1b")  # noqa: PTH104
    for command in (["misclassified", "--json"], ["plot"]):
        answer = cli(*command)
        assert answer.code == 0, answer.err
        assert is_safe(answer.out + answer.err), command


@posix
@pytest.mark.fault(69)
def test_no_error_prints_what_a_hostile_argument_holds(cli: Cli, in_tmp: Path) -> None:
    for name in map(os.fsdecode, HOSTILE):
        commands = [
            [name], [f"--{name}"], ["recipes", "show", name], ["summary", "--recipe", name],
            ["summary", "--recipe", f"{name}.yaml"], ["summary", "--config", name],
            ["summary", "--set", name], ["summary", "--set", f"{name}=1"],
            ["summary", "--set", f"model.name={name}"], ["summary", "--device", name],
            ["summary", "--depth", name], ["summary", "--data", name], ["train", "--name", name],
            ["train", "--recipe", "demo", "--resume", "--name", name],
            ["evaluate", name], ["evaluate", "--checkpoint", name], ["evaluate", "--split", name],
            ["misclassified", name, "--sort", name], ["plot", name], ["bench", name],
            ["preview-augs", "--index", name], ["find-lr", "--step-mode", name],
        ]  # fmt: skip
        for command in commands:
            for debug in ([], ["--debug"]) if name == os.fsdecode(HOSTILE[0]) else ([],):
                answer = cli(*debug, *command)
                assert answer.code in (2, 3, 4), (command, answer.err)
                assert is_safe(answer.out + answer.err), command
    assert tree(in_tmp) == []


@posix
@pytest.mark.fault(69)
def test_hostile_names_in_a_configuration_and_a_bad_image_are_shown_as_escapes(
    cli: Cli, in_tmp: Path
) -> None:
    for number, name in enumerate(("\x1b[2J", "\u202e", "\ud800", "\n", "[bold]:dog:")):
        escaped = name.encode("unicode_escape").decode()
        Path("c.yaml").write_text(f'"{escaped}": 1\nmodel: {{"{escaped}": "{escaped}"}}\n')
        answer = cli("summary", "--config", "c.yaml")
        assert answer.code == 2
        assert is_safe(answer.err)
        Path("c.yaml").write_text(f'data: {{source: "{escaped}"}}\n')
        assert is_safe(cli("summary", "--config", "c.yaml").err)
        for split in ("train", "test"):
            for label in ("a", "b"):
                folder = Path(str(number), split, label)
                folder.mkdir(parents=True)
                file = folder / f"{name}.png".encode("utf-8", "ignore").decode()
                file.write_bytes(b"")
        answer = cli("train", *TINY_FLAGS, "--data", number)
        assert answer.code == 3
        assert is_safe(answer.err)


@pytest.mark.fault(69)
def test_tables_and_json_escape_what_is_not_to_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    figure = {"mean": 1.0, "n": 1, "interval": None, "deviation": None}
    names = (
        "accuracy", "accuracy_six_views", "train_seconds", "process_seconds", "evaluate_seconds",
        "cpu_seconds", "peak_bytes", "train_flops",
    )  # fmt: skip
    text = io.StringIO()
    for name in map(os.fsdecode, HOSTILE):
        report = {"recipes": {name: dict.fromkeys(names, figure)}}
        Screen(text).print(bench_table(report, 80))
        print_json({"name": name})
    assert is_safe(text.getvalue())
    assert is_safe(capsys.readouterr().out)
    assert "\\x1b[2Jclear" in text.getvalue()


@pytest.mark.fault(70)
def test_what_an_encoding_lacks_is_written_as_the_nearest_ascii() -> None:
    for text, nearest in (
        ("├─ ✓ 64×32 … → é ▁▂█", "+- v 64x32 ... -> e _.#"),
        ("漢\u202e", "\\u6f22\\u202e"),
        (os.fsdecode(b"\xff"), "\\xff"),
    ):
        assert text.encode("ascii", NEAREST).decode() == nearest
        for encoding in ("latin-1", "cp1252", "cp437", "utf-8"):
            assert text.encode(encoding, NEAREST)
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Screen(Stream(plain, is_needed=True)).print("95% ± 1 ✓")
    plain.seek(0)
    assert plain.read() == "95% +- 1 v\n"


@linux
@pytest.mark.fault(70)
def test_streams_may_be_closed_full_or_of_another_encoding(in_tmp: Path) -> None:
    python = f"{sys.executable} -m cifar_cli"
    for arguments, code in (
        ("recipes list >&-", 0),
        ("recipes list >&- 2>&-", 0),
        ("recipes list --json 2>&- </dev/null", 0),
        ("recipes show nothing >&- 2>&-", 2),
        ("recipes show nothing 2>/dev/full", 2),
        ("recipes list 1</dev/null", 0),
        ("recipes list >/dev/full", 7),
        ("recipes show demo >/dev/full", 7),
        ("recipes list >/dev/full 2>/dev/full", 7),
        ("recipes copy demo d.yaml >&- <&- 2>&-", 0),
        ("--help >/dev/full", 7),
        ("--version >/dev/full", 7),
    ):
        found = subprocess.run(
            f"{python} {arguments}", shell=True, capture_output=True, text=True, check=False
        )
        assert found.returncode == code, (arguments, found.stderr)
        assert "Traceback" not in found.stderr
        assert len(found.stderr.splitlines()) <= 1
    assert "Cannot write the results" not in Path("d.yaml").read_text()
    for encoding in ("ascii", "latin-1", "cp1252"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        listed = subprocess.run(
            [*COMMAND, "recipes", "list"], env=environment, capture_output=True, check=False
        )
        assert (listed.returncode, listed.stderr) == (0, b"")
        assert b"baseline" in listed.stdout
        assert listed.stdout.decode(encoding)


def interrupted_after(number: int, hook: str) -> subprocess.CompletedProcess[str]:
    """`recipes list` in a process that is sent a signal in the place that `hook` names."""
    program = (
        "import os, signal, sys\n"
        f"def kill(): os.kill(os.getpid(), {number})\n"
        f"{hook}\n"
        "from cifar_cli.__main__ import main\n"
        "sys.argv = ['cifar-resnet', 'recipes', 'list']\n"
        "main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )


IN_AN_IMPORT = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            try:
                kill()
            except BaseException:  # as libraries do
                raise ImportError("not there")
sys.meta_path.insert(0, Finder())
"""
IN_A_CALLBACK = """
class Deleted:
    def __del__(self): kill()
import cifar_cli.config.recipe_files as recipe_files
names = recipe_files.recipe_names
def spoiled():
    Deleted()
    return names()
import cifar_cli.config
cifar_cli.config.recipe_names = spoiled
"""
SWALLOWED = """
import cifar_cli.cli.stopping as stopping
stopping.GRACE_SECONDS = 0.3
import cifar_cli.config.recipe_files as recipe_files, time
names = recipe_files.recipe_names
def deaf():
    try:
        kill()
        time.sleep(1)
    except KeyboardInterrupt:
        time.sleep(30)
    return names()
import cifar_cli.config
cifar_cli.config.recipe_names = deaf
"""


@posix
@pytest.mark.fault(22)
@pytest.mark.fault(71)
def test_a_signal_at_any_moment_ends_with_its_code_and_one_line() -> None:
    early, late = "typer", "rich.table"
    places = [IN_AN_IMPORT.format(name=name) for name in (early, late)]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for hook in places:
            found = interrupted_after(number, hook)
            assert (found.returncode, found.stdout) == (128 + number, "")
            assert found.stderr == "Interrupted.\n"
    for hook in (IN_A_CALLBACK, SWALLOWED):
        found = interrupted_after(signal.SIGINT, hook)
        assert (found.returncode, found.stdout, found.stderr) == (130, "", "Interrupted.\n")


@posix
@pytest.mark.fault(71)
def test_a_signal_that_is_ignored_stays_ignored() -> None:
    ignored = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    hook = ignored + IN_AN_IMPORT.format(name="rich.table")
    found = interrupted_after(signal.SIGHUP, hook)
    assert found.returncode == 0, found.stderr


@pytest.mark.fault(77)
def test_a_library_that_does_not_load_is_named_as_what_is_missing(in_tmp: Path) -> None:
    packages = in_tmp / "packages"
    packages.mkdir()
    for body, code, word in (
        ("import nothing_of_this_name", 2, "Cannot load nothing_of_this_name"),
        ("raise RuntimeError('built for another numpy')", 2, "built for another numpy"),
        ("raise OSError('libtorch_cpu.so: cannot open shared object')", 2, "Cannot load torch"),
        ("1 +", 2, "SyntaxError"),
        ("raise MemoryError", 6, "loading torch"),
        ("raise ImportError('libx.so: Cannot allocate memory')", 6, "loading torch"),
    ):
        (packages / "torch.py").write_text(body)
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        path = [str(packages), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        found = subprocess.run(
            [*COMMAND, "summary"], env=environment, capture_output=True, text=True, check=False
        )
        assert found.returncode == code, found.stderr
        assert word in found.stderr
        assert len(found.stderr.splitlines()) == 1
        assert "Internal error" not in found.stderr
    listed = subprocess.run(
        [*COMMAND, "recipes", "list"], env=environment, capture_output=True, check=False
    )
    assert listed.returncode == 0  # which needs no torch


@pytest.mark.fault(73)
def test_errors_of_the_system_have_their_codes() -> None:
    for error, code in (
        (OSError(28, "No space left on device"), 7),
        (OSError(24, "Too many open files", "x"), 6),
        (OSError(12, "Cannot allocate memory"), 6),
        (RuntimeError("can't start new thread"), 6),
        (MemoryError(), 6),
        (FileNotFoundError(2, "No usable temporary directory found"), 7),
        (PermissionError(13, "Permission denied", b"x\xff"), 2),
        (ZeroDivisionError("oh"), 1),
    ):
        assert explain(error)[1] == code, error


@posix
@pytest.mark.fault(90)
def test_paths_with_a_tilde_mean_the_home_folder_everywhere(
    cli: Cli, trained: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = in_tmp / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert cli("recipes", "copy", "demo", "~/mine.yaml").code == 0
    assert cli("summary", "--recipe=~/mine.yaml", "--config", "~/mine.yaml").code == 0
    assert cli("plot", trained, "--out=~/o").code == 0
    assert {"mine.yaml", "o/step_loss.png"} <= set(tree(home))
    assert [path.name for path in in_tmp.iterdir()] == ["home"]


@pytest.mark.fault(79)
def test_figures_are_drawn_whatever_a_user_has_set_for_others(trained: Path, in_tmp: Path) -> None:
    settings = b"text.usetex: True\nfont.size: x\n\x1b[2J: 3\n\xff\n"
    (in_tmp / "matplotlibrc").write_bytes(settings)
    environment = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    found = subprocess.run(
        [*COMMAND, "plot", str(trained), "--out", "o"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")
    assert len(tree(in_tmp / "o")) == 3


@pytest.mark.fault(69)
def test_a_warning_of_a_library_is_one_safe_line(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(), plain_warnings():
        warnings.simplefilter("always")
        warnings.warn("a\n  b \x1b[2J", stacklevel=1)
    assert capsys.readouterr() == ("", "Warning: a b \\x1b[2J\n")


@pytest.mark.fault(91)
def test_modules_in_the_working_folder_are_not_run(in_tmp: Path) -> None:
    for name in ("contextlib", "json", "resource", "rich", "signal", "torch", "typer", "yaml"):
        (in_tmp / f"{name}.py").write_text(f"open('ran-{name}', 'w')\nraise SystemExit(9)\n")
    found = subprocess.run(
        [*COMMAND, "recipes", "show", "demo"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert not list(in_tmp.glob("ran-*"))


def test_variables_that_are_no_numbers_and_a_deleted_folder_end_with_no_fault(
    cli: Cli, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("COLUMNS", "²"), ("TERMINAL_WIDTH", "abc"), ("LINES", "-1")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert cli("recipes", "list").code == 0
    monkeypatch.setenv("_CIFAR_RESNET_COMPLETE", "x")
    assert cli("recipes", "show", "demo").code == 0
    gone = in_tmp / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    answer = cli("summary")
    assert (answer.code, "no longer exists" in answer.err) == (2, True)
