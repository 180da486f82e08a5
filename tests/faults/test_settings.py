"""Faults of settings: YAML, bounds, the LR range test, augmentation, network, terminal."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_FLAGS, Answer, on_cpu, random_images, spoiled, tiny_config, tree
from forked import ForkedPython

from cifar_cli.config import load_config
from cifar_cli.config.settings import TAGS, all_settings
from cifar_cli.data.loader import TrainLoader, make_augment
from cifar_cli.data.splits import Splits
from cifar_cli.data.types import ImageSet
from cifar_cli.errors import ConfigError
from cifar_cli.training.lr_search import lr_range_test

Cli = Callable[..., Answer]
CPU = torch.device("cpu")
posix = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")


def child(
    *arguments: object, packages: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own, `packages` first on its path."""
    path = {"PYTHONPATH": str(packages)} if packages else {}
    return subprocess.run(
        [sys.executable, "-m", "cifar_cli", *map(str, arguments)],
        env={**os.environ, **path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def nested(flat: dict[str, object]) -> str:
    """Dotted keys as YAML sections, in flow style."""
    sections: dict[str, list[str]] = {}
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        sections.setdefault(section, []).append(f"{name}: {value}")
    return "\n".join(
        "\n".join(lines) if not section else f"{section}: {{{', '.join(lines)}}}"
        for section, lines in sections.items()
    )


WAYS = ["--config", "--recipe", "--set"]
BAD = {
    "unknown key": ("optim", "{max_lrr: 1}", "did you mean 'max_lr'?"),
    "key twice": ("optim", "{max_lr: 1, max_lr: 2}", "'max_lr' stands twice"),
    "Python tag": ("seed", "!!python/object/apply:os.system ['touch marker']", "python"),
    "Python name": ("seed", "!!python/name:os.system", "python"),
    "not a mapping": ("optim", "[1, 2]", "optim"),
    "alias": ("optim", "{max_lr: &x 1, weight_decay: *x}", "aliases"),
}


@pytest.mark.fault(46)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", BAD)
def test_bad_yaml_is_refused_and_nothing_runs(cli: Cli, in_tmp: Path, way: str, fault: str) -> None:
    key, text, word = BAD[fault]
    (in_tmp / "mine.yaml").write_text(f"{key}: {text}\n")
    answer = cli("summary", way, f"{key}={text}" if way == "--set" else "mine.yaml")
    assert answer.code == 2
    assert word in answer.err
    assert answer.err.count("\n") == 1
    assert tree(in_tmp) == ["mine.yaml"]


@pytest.mark.fault(46)
@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("text", ["- 1\n- 2\n", "just words\n", "7\n"])
def test_a_file_that_is_no_mapping_is_refused(cli: Cli, in_tmp: Path, way: str, text: str) -> None:
    (in_tmp / "mine.yaml").write_text(text)
    answer = cli("summary", way, "mine.yaml")
    assert answer.code == 2
    assert "key: value" in answer.err


@pytest.mark.fault(46)
@pytest.mark.parametrize("way", WAYS)
def test_a_power_of_ten_is_a_number(cli: Cli, in_tmp: Path, way: str) -> None:
    settings = {**TINY, "train.epochs": 1}
    if way == "--set":
        settings.pop("optim.max_lr")
    else:
        settings["optim.max_lr"] = "1e-3"
    (in_tmp / "mine.yaml").write_text(nested(settings))
    more = ["--config", "mine.yaml", "--set", "optim.max_lr=1e-3"] if way == "--set" else []
    answer = cli("train", *(more or [way, "mine.yaml"]), "--run-dir", "r")
    assert answer.code == 0, answer.err
    rate = load_config(in_tmp / "r" / "config.yaml", env={}).optim.max_lr
    assert rate == 0.001
    assert isinstance(rate, float)


LAUGHS = """
import resource, sys, time
from cifar_cli.cli.app import run
started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
code = run(sys.argv[1:])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(code, time.perf_counter() - started, (after - before) / 1024)
"""


@posix
@pytest.mark.fault(46)
@pytest.mark.parametrize("way", ["--config", "--recipe"])
@pytest.mark.parametrize("megabytes", [0, 10])
def test_a_file_of_nested_anchors_is_refused_at_once(
    in_tmp: Path, way: str, megabytes: int
) -> None:
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    count = megabytes * 2**20 // 50
    lines += [f"b{n}: &b{n} [*a19, *a19, *a19, *a19, *a19, *a19]" for n in range(count)]
    (in_tmp / "laughs.yaml").write_text("\n".join(lines))
    assert (in_tmp / "laughs.yaml").stat().st_size >= megabytes * 2**20
    assert_refused_at_once(way, "laughs.yaml")


@posix
@pytest.mark.fault(46)
def test_a_file_without_end_is_refused_at_once(in_tmp: Path) -> None:
    assert_refused_at_once("--config", "/dev/zero")


def assert_refused_at_once(way: str, file: str) -> None:
    """2, within two seconds and 100 MiB, in a process of its own."""
    found = subprocess.run(
        [sys.executable, "-c", LAUGHS, "summary", way, file],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    code, seconds, mebibytes = map(float, found.stdout.split())
    assert code == 2, found.stderr
    assert seconds < 2
    assert mebibytes < 100


NUMBERS = ("!!int 0x" + "F" * 5000, "!!float " + "9" * 5000, "9" * 401, "1e" + "0" * 4999)


@pytest.mark.fault(94)
@pytest.mark.parametrize("way", [*WAYS, "environment"])
def test_tags_and_numbers_of_endless_digits_are_refused(
    cli: Cli, in_tmp: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = ("!!int 1", "!!str a", "! a", "!!set {a}", "!!binary aGk=", "!x 1", "!!map {a: 1}")
    for text in (*NUMBERS, *tags):
        for document in (text, f"seed: {text}"):
            (in_tmp / "mine.yaml").write_text(document)
            arguments = [way, f"seed={text}" if way == "--set" else "mine.yaml"]
            if way == "environment":
                monkeypatch.setenv("CIFAR_RESNET_SEED", text)
                arguments = []
            answer = cli("summary", *arguments)
            assert (answer.code, answer.err.count("\n")) == (2, 1), (text[:20], answer.err)
            # A long argument is also refused as it could be a path.
            reasons = ("tags are not supported", "digits", "a path takes 255")
            assert any(reason in answer.err for reason in reasons), answer.err
            assert len(answer.err) < 300


@pytest.mark.fault(47)
def test_all_wrong_values_stand_in_one_message(cli: Cli, in_tmp: Path) -> None:
    answer = cli(
        "train", "--data", "shapes", "--max-lr", 0, "--epochs", 0, "--pct-start", 1.5,
        "--batch-size", 0, "--seed", -1, "--set", "model.width=0", "--set", "optim.lr=1",
        "--set", "data.std=[0.2, 0, 0.2]", "--set", "data.workers=-1",
        "--set", "augment.crop_scale=[1, 0.5]", "--set", "augment.flip_p=2",
    )  # fmt: skip
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    for word in (
        "optim.max_lr = 0", "train.epochs = 0", "schedule.pct_start = 1.5",
        "train.batch_size = 0", "seed = -1", "model.width = 0", "'optim.lr'", "data.std",
        "data.workers = -1", "augment.crop_scale", "augment.flip_p = 2",
    ):  # fmt: skip
        assert word in answer.err, word
    assert tree(in_tmp) == []


EXTREMES = (
    "0", "-1", "1e-320", "1e308", "-1e308", "1e400", "9" * 25, "9" * 5000, "nan", ".inf", "null",
    "''", "x", "[1]", "[]", "{}", "{a: 1}", "true", "[2, 2, 2]", "[1e308, 0, 0]", "<<", "=",
    "[" * 100 + "]" * 100, "!!set {a}", "!!omap [a: 1]", "2020-01-01", '"\\ud800"',
)  # fmt: skip


@pytest.mark.fault(47)
@pytest.mark.fault(68)
def test_no_value_of_any_setting_is_a_fault_of_the_program(cli: Cli, in_tmp: Path) -> None:
    for number, (key, variant, field) in enumerate(all_settings()):
        section, default = key.partition(".")[0], field.default
        named = [f"{section}.{TAGS[section]}={variant}"] if variant else []
        for value in EXTREMES:
            with contextlib.suppress(ConfigError):  # anything else would escape
                load_config(overrides=[*named, f"{key}={value}"], env={})
        # Too few steps for a curve: it ends with 2 whether the setting is right or wrong.
        value = EXTREMES[number % len(EXTREMES)]
        sets = [part for text in (*named, f"{key}={value}") for part in ("--set", text)]
        answer = cli("find-lr", "--num-iter", 1, *sets)
        assert answer.code == 2, (key, value, answer.err)
        assert len(answer.err.splitlines()) == 1
        assert len(answer.err) < 900
        if isinstance(default, int | float) and not isinstance(default, bool):
            for value in ("-1e300", "1e300"):
                with pytest.raises(ConfigError, match=rf"Wrong settings: {re.escape(key)} = "):
                    load_config(overrides=[*named, f"{key}={value}"], env={})
    assert tree(in_tmp) == []


@pytest.mark.fault(47)
@pytest.mark.fault(68)
def test_numbers_and_names_without_bound_are_refused(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (
        ["summary", "--set", "data.mean=[2, 2, 2]"],
        ["summary", "--set", "data.mean=[1e308, 0, 0]"],
        ["summary", "--set", ".".join("a" * 1500) + "=1"],
        ["summary", "--set", "a" * 200_000 + "=1"],
        ["summary", "--set", "seed=" + "[" * 1500],
        ["preview-augs", "--epoch", "9" * 20],
        ["preview-augs", "--index", "9" * 20],
        ["misclassified", "--n", "9" * 20],
        ["bench", "--seed", "9" * 20],
        ["train", "--epochs", "9" * 20],
        ["train", "--max-lr", "1e400"],
        ["find-lr", "--end-lr", "1e400"],
    ):
        answer = cli(*arguments)
        assert answer.code == 2, answer.err
        assert len(answer.err) < 400
    monkeypatch.setenv("CIFAR_RESNET_" + "__" * 1500, "1")
    answer = cli("summary")
    assert answer.code == 2
    assert "Unknown environment variable" in answer.err


@pytest.mark.fault(47)
@pytest.mark.parametrize("rate", ["0", "-0.1", "nan", "inf", "fast"])
def test_a_rate_that_is_no_positive_number_is_refused(cli: Cli, rate: str) -> None:
    answer = cli("train", "--data", "shapes", f"--max-lr={rate}")
    assert answer.code == 2
    assert "optim.max_lr" in answer.err


def rng_states() -> bytes:
    """The state of every generator of random numbers."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state().numpy()  # noqa: NPY002
    return pickle.dumps(states)


@pytest.mark.fault(48)
@pytest.mark.parametrize("form", ["tensor", "albumentations"])
@pytest.mark.parametrize("end", ["finished", "diverged", "no number", "too few", "interrupted"])
def test_an_lr_range_test_leaves_the_rng_state_as_it_was(
    form: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = 1 if (form, end) == ("albumentations", "interrupted") else 0
    config = tiny_config(augment__form=form, data__workers=workers)
    images = random_images(100, classes=4)
    if end == "no number":
        monkeypatch.setattr("cifar_cli.training.state.build_model", spoiled)
    before = rng_states()

    def on_step(what: str, done: int, total: int | None) -> None:
        if end == "interrupted" and done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    how = "finished"
    try:
        lr_range_test(
            config, Splits(images, images, tuple("abcd"), val_from="test"), on_cpu(config),
            start_lr=1e-4, end_lr=1e30 if end == "diverged" else 0.1,
            num_iter=5 if end == "too few" else 20, on_step=on_step,
        )  # fmt: skip
    except BaseException as error:
        how = type(error).__name__
    assert rng_states() == before
    expected = {
        "finished": {"finished"},
        "diverged": {"finished", "DivergedError"},
        "no number": {"DivergedError"},
        "too few": {"ConfigError"},
        "interrupted": {"KeyboardInterrupt"},
    }
    assert how in expected[end]


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    ("more", "code", "word"),
    [
        # The first step takes the weights so far that no loss after it is a number.
        (["--start-lr", "1e36", "--end-lr", "1e37"], 5, "after 1 steps"),
        (["--num-iter", "5"], 2, "--num-iter 5"),
    ],
    ids=["no number", "too few"],
)
def test_find_lr_says_why_there_is_no_curve(
    cli: Cli, in_tmp: Path, more: list[str], code: int, word: str
) -> None:
    answer = cli("find-lr", *TINY_FLAGS, *more)
    assert answer.code == code, answer.err
    assert word in answer.err
    assert answer.err.count("\n") == 1
    assert tree(in_tmp) == []


@posix
@pytest.mark.fault(48)
def test_ctrl_c_ends_find_lr_with_130_and_without_files(in_tmp: Path) -> None:
    ours, theirs = terminal()
    program = [sys.executable, "-m", "cifar_cli", "find-lr", *TINY_FLAGS, "--num-iter", "5000"]
    # Stderr is a terminal, so that the bar tells when the test has begun.
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        seen = b""
        while b"LR range test" not in seen:
            seen += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        out = process.stdout.read()
        while chunk := read_or_end(ours):
            seen += chunk
    os.close(ours)
    assert process.returncode == 130
    assert out == ""
    assert b"Interrupted." in seen
    assert b"Traceback" not in seen
    assert tree(in_tmp) == []


def terminal() -> tuple[int, int]:
    """Both ends of a terminal."""
    import pty

    try:
        return pty.openpty()
    except OSError as error:  # a container or chroot without /dev/pts
        pytest.skip(f"there are no terminals here: {error}")


def read_or_end(descriptor: int) -> bytes:
    """Bytes of a terminal; none at its end, which Linux tells as an error."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


@pytest.mark.fault(49)
def test_draws_in_workers_all_differ_and_repeat_for_the_same_seed() -> None:
    # One picture many times over: what comes out differs only where the draws do.
    picture = random_images(1).images.expand(60, 32, 32, 3).clone()
    images = ImageSet(picture, torch.arange(60), torch.arange(60))

    def draws(workers: int, seed: int = 1) -> list[bytes]:
        config = load_config(
            env={},
            settings={
                "augment.crop_p": 1, "augment.flip_p": 0.5, "augment.cutout_p": 1,
                "train.batch_size": 16, "data.workers": workers, "seed": seed,
            },
        )  # fmt: skip
        with TrainLoader(images, config, CPU) as loader:
            return [
                image.contiguous().numpy().tobytes()
                for epoch in (1, 2)
                for batch, _ in loader.epoch(epoch)
                for image in batch
            ]

    first = draws(2)
    assert len(first) == len(set(first)) == 120
    assert draws(2) == first
    assert draws(0) == draws(1) == draws(3) == first
    assert not set(draws(2, seed=2)) & set(first)


@pytest.mark.fault(50)
@pytest.mark.parametrize("form", ["tensor", "albumentations"])
def test_all_eight_combinations_of_three_transforms_occur(form: str) -> None:
    # Red rises from left to right, green from top to bottom, blue is full: it can be read off
    # what was done.
    ramp = torch.arange(32, dtype=torch.uint8) * 8
    image = torch.full((32, 32, 3), 255, dtype=torch.uint8)
    image[..., 0], image[..., 1] = ramp[None, :], ramp[:, None]
    config = load_config(
        env={},
        settings={
            "augment.form": form, "augment.crop_p": 0.5, "augment.flip_p": 0.5,
            "augment.cutout_p": 0.5, "augment.crop_scale": [0.2, 0.5],
        },
    )  # fmt: skip
    count = 800
    out = make_augment(config)(image.expand(count, 32, 32, 3).clone(), torch.arange(count), 1)
    combinations: Counter[tuple[bool, bool, bool]] = Counter()
    for seen in out:
        hole = seen[..., 2] < 200
        rows = ~hole.any(1)
        red, green = seen[rows][:, :, 0].int(), seen[rows][:, :, 1].int()
        cropped = bool(red.max() - red.min() < 240 or green.max() - green.min() < 180)
        combinations[cropped, bool(red[0, 0] > red[0, -1]), bool(hole.any())] += 1
    assert len(combinations) == 8
    # Each one eighth: 100, give or take four standard deviations.
    assert all(60 < n < 140 for n in combinations.values()), combinations


BLOCKED = """
import os, socket

def refuse(what, *details):
    with open(os.environ["LOOKUPS"], "a") as file:
        print(what, *details, file=file)
    raise OSError("the network is blocked")

plain_connect = socket.socket.connect

def connect(self, address):
    if self.family == getattr(socket, "AF_UNIX", None):  # between the processes of one machine
        return plain_connect(self, address)
    refuse("connect", address)

class Socket(socket.socket):
    connect = connect
    connect_ex = connect
    sendto = lambda self, *a: refuse("sendto", *a)

socket.socket = Socket
for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection"):
    setattr(socket, name, lambda *a, name=name, **k: refuse(name, *a))
"""
LOOK_UP = "import contextlib, urllib.request as r\nwith contextlib.suppress(OSError): r.urlopen"


@pytest.fixture
def blocked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A path whose processes have no network, and the file where they note each attempt."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "sitecustomize.py").write_text(BLOCKED)
    return folder, folder / "lookups"


@pytest.mark.fault(51)
def test_nothing_looks_anything_up(in_tmp: Path, blocked: tuple[Path, Path]) -> None:
    packages, notes = blocked
    flags = [*TINY_FLAGS, "--set", "augment.form=albumentations", "--set", "data.workers=1"]
    environment = {"LOOKUPS": str(notes), "PYTHONWARNINGS": "default"}
    environment["CIFAR_RESNET_HOME"] = str(in_tmp / "home")
    shown = child("--help", packages=packages, **environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    trained = child("train", *flags, "--run-dir", "r", packages=packages, **environment)
    assert trained.returncode == 0, trained.stderr
    assert not re.search(r"\wWarning\b", trained.stderr), "of Python or a library"
    assert not notes.exists(), notes.read_text()


@pytest.mark.fault(51)
def test_the_block_sees_a_look_up(blocked: tuple[Path, Path]) -> None:
    packages, notes = blocked
    environment = {**os.environ, "PYTHONPATH": str(packages), "LOOKUPS": str(notes)}
    # What Albumentations does when it is imported and nobody has forbidden it.
    program = f"{LOOK_UP}('https://pypi.org/pypi/albumentations/json', timeout=2)"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert notes.read_text()


@pytest.mark.fault(52)
def test_the_copyleft_successor_in_the_place_of_albumentations_is_refused(
    cli: Cli,
    in_tmp: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packages = tmp_path_factory.mktemp("site-packages")
    info = packages / "albumentationsx-2.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: albumentationsx\nVersion: 2.1.0\nLicense: AGPL-3.0\n"
    )
    (packages / "albumentations").mkdir()
    (packages / "albumentations" / "__init__.py").write_text("open('imported', 'w')\n")
    train = ["train", *TINY_FLAGS, "--run-dir", "r"]
    refused = child(*train, "--set", "augment.form=albumentations", packages=packages)
    assert refused.returncode == 2, refused.stderr
    assert "albumentationsx (AGPL)" in refused.stderr
    assert "pip uninstall albumentationsx" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert tree(in_tmp) == []
    # What does not need it goes on.
    monkeypatch.syspath_prepend(packages)
    assert cli(*train).code == 0


@pytest.mark.fault(53)
def test_without_a_terminal_there_are_plain_lines_and_figures(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    plain = {"TERM": "dumb", "NO_COLOR": "1", "MPLBACKEND": "TkAgg"}
    commands = ["train", *TINY_FLAGS, "--run-dir", "r"], ["plot", "r"]
    program = f"import sys; from cifar_cli.cli.app import run; sys.exit(sum(map(run, {commands})))"
    with (in_tmp / "out").open("w") as out, (in_tmp / "err").open("w") as err:
        code = subprocess.run(
            [sys.executable, "-c", program],
            stdout=out, stderr=err, env={**os.environ, **plain}, check=False,
        ).returncode  # fmt: skip
    told = (in_tmp / "err").read_text()
    assert code == 0, told
    lines = told.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert not any(letter in told + (in_tmp / "out").read_text() for letter in "\x1b\r")
    assert len(tree(in_tmp / "r" / "plots")) == 3


@posix
@pytest.mark.fault(53)
def test_a_terminal_that_can_do_nothing_gets_plain_lines(
    forked_python: ForkedPython, in_tmp: Path
) -> None:
    ours, theirs = terminal()
    program = [forked_python.command, "train", *TINY_FLAGS, "--run-dir", "r"]
    environment = {**os.environ, "TERM": "dumb", "NO_COLOR": "1"}
    with subprocess.Popen(program, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        while chunk := read_or_end(ours):
            seen += chunk
    os.close(ours)
    assert process.returncode == 0
    assert b"\x1b" not in seen
    lines = seen.replace(b"\r\n", b"\n").split(b"\n")
    assert sum(line.startswith(b"epoch ") for line in lines) == 2
    assert b"\r" not in b"".join(lines)
