"""`serve`: the real command, asked over real connections."""

from __future__ import annotations

import base64
import importlib.util
import io
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Answer, share_compiled_code, shared_native
from PIL import Image
from served import Served, bomb, form, picture, serving

from cifar_cli import load_model
from cifar_cli.data.inputs import to_pixels
from cifar_cli.data.sources.pixels import Rules
from cifar_cli.serving.gate import HEADERS

Call = Callable[..., Answer]
FORM = {"Content_Type": "multipart/form-data; boundary=x"}
MAX_BYTES, MAX_PIXELS, TIMEOUT = 100_000, 90_000, 1.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder with the compiled code, for servers that several tests ask."""
    folder = tmp_path_factory.mktemp("home")
    share_compiled_code(shared_native(tmp_path_factory), folder / "native")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_RESNET_HOME", str(folder))
        yield


@pytest.fixture(scope="module")
def run(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("serve") / "runs" / "tiny"))


@pytest.fixture(scope="module")
def server(run: Path, home: None) -> Iterator[Served]:
    """With limits that tests can reach."""
    limits = "--max-bytes", MAX_BYTES, "--max-pixels", MAX_PIXELS, "--timeout", TIMEOUT
    with serving(run.parents[1], "tiny", *limits, "--rate", 1000) as found:
        yield found


def test_an_answer_is_that_of_predict(server: Served, run: Path) -> None:
    model, content = load_model(run), picture(60, "JPEG")
    image = Image.open(io.BytesIO(content))
    expected = model.predict(image)
    plain = server.ask("/predict?top=3", content)
    assert plain.status == 200
    assert set(plain.json) == {"schema_version", "predictions", "unlike", "error"}
    found = {one["class"]: one["probability"] for one in plain.json["predictions"]}
    assert list(found) == list(expected.probabilities)[:3]
    assert found == pytest.approx({n: expected.probabilities[n] for n in found}, abs=1e-5)
    assert plain.json["error"] is None
    assert isinstance(plain.json["unlike"], bool)
    assert server.ask("/predict?top=3", form("file", content), **FORM).json == plain.json
    assert len(server.ask("/predict", content).json["predictions"]) == 5
    mapped = server.ask("/predict?map=true", content).json
    assert mapped["map_error"] is None
    heat, seen = (
        Image.open(io.BytesIO(base64.b64decode(mapped[key].partition(",")[2])))
        for key in ("map", "seen")
    )
    assert (heat.size, heat.mode, seen.size) == ((32, 32), "RGBA", (32, 32))
    assert (to_pixels(seen, Rules(32)) == to_pixels(image, Rules.of(model.config.data))).all()
    assert server.ask("/healthz").json == {"status": "ok"}


def test_pictures_sent_at_once_get_the_answers_that_each_gets_alone(server: Served) -> None:
    contents = [picture(seed=seed) for seed in range(24)]
    alone = [server.ask(body=content).json["predictions"] for content in contents]
    together: list[object] = [None] * len(contents)

    def ask(n: int) -> None:
        together[n] = server.ask(f"/predict{'?map=true' * (n % 2)}", contents[n]).json

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, dict)
        assert one[0]["class"] == other["predictions"][0]["class"]
        shares = [p["probability"] for p in one]
        assert shares == pytest.approx([p["probability"] for p in other["predictions"]], abs=1e-5)


def test_openapi_describes_the_answers(server: Served) -> None:
    document = server.ask("/openapi.json").json
    assert set(document["paths"]) == {"/predict", "/healthz", "/model"}
    operation = document["paths"]["/predict"]["post"]
    assert {p["name"] for p in operation["parameters"]} == {"top", "map"}
    assert "multipart/form-data" in operation["requestBody"]["content"]
    assert {"200", "400", "408", "413", "415", "422", "429", "503"} <= set(operation["responses"])
    schema = document["components"]["schemas"]["PredictedAnswer"]
    answer = server.ask("/predict?map=true", picture()).json
    assert set(schema["properties"]) == set(answer)
    assert set(schema["required"]) == set(server.ask(body=picture()).json)
    assert "http" not in server.ask("/").content.decode().replace("http://www.w3.org/2000/svg", "")


@pytest.mark.fault(107, 108)
@pytest.mark.parametrize(
    ("status", "request_"),
    {
        "no picture": (400, {"body": b""}),
        "random bytes": (415, {"body": bytes(range(256)) * 9}),
        "an SVG": (415, {"body": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}),
        "cut short": (422, {"body": picture()[:900]}),
        "a bomb": (413, {"body": bomb()}),
        "too many pixels": (413, {"body": picture(301, "JPEG")}),
        "too many bytes": (413, {"body": bytes(MAX_BYTES + 1)}),
        "too many bytes in chunks": (413, {"body": iter([bytes(50_000)] * 5)}),
        "thousands of tiny chunks": (400, {"body": iter([b"x"] * 5000)}),
        "a damaged form": (400, {"body": b"--y\r\n\r\n", **FORM}),
        "a form without boundary": (400, {"body": b"--y", "Content_Type": "multipart/form-data"}),
        "a form without file": (400, {"body": form("other", b"1"), **FORM}),
        "a wrong parameter": (422, {"path": "/predict?top=0", "body": picture()}),
        "another host": (400, {"body": picture(), "Host": "evil.example"}),
        "another host for the page": (400, {"path": "/", "Host": "evil.example:80"}),
        "a page of another site": (403, {"body": picture(), "Sec_Fetch_Site": "cross-site"}),
        "a path that leads out": (404, {"path": "/../../etc/passwd"}),
        "a method": (405, {"path": "/predict"}),
        "a large header": (400, {"path": "/", "X_Long": "y" * 60_000}),
    }.values(),
)  # fmt: skip
def test_a_hostile_request_gets_a_status_and_a_sentence(
    server: Served, status: int, request_: dict[str, object]
) -> None:
    started = time.monotonic()
    reply = server.ask(**request_)  # type: ignore[arg-type]
    assert time.monotonic() - started < 5
    assert reply.status == status, reply.content
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert {key: reply.json[key] for key in ("predictions", "unlike")} == {
        "predictions": [], "unlike": None,
    }  # fmt: skip
    assert re.fullmatch(r"[A-Z][^\n]*\.", reply.json["error"])
    assert server.ask(body=picture()).status == 200


def test_every_answer_has_headers_that_confine_it(server: Served) -> None:
    for path, kind in {
        "/": "text/html",
        "/app.js": "text/javascript",
        "/style.css": "text/css",
    }.items():
        reply = server.ask(path)
        assert reply.status == 200
        assert reply.headers["content-type"].startswith(kind)
        assert {name: reply.headers[name] for name in HEADERS} == HEADERS
    reply = server.ask("/predict", picture(), Origin="http://evil.example")
    assert "access-control-allow-origin" not in reply.headers
    assert reply.headers["cache-control"] == "no-store"
    assert "server" not in reply.headers
    for host in ("localhost:1", "192.168.0.7", "[::1]:8000"):
        assert server.ask("/healthz", Host=host).status == 200


@pytest.mark.fault(106)
def test_clients_that_send_nothing_hold_up_no_one_and_are_dropped(server: Served) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n"
    starts = [head, head + b"x" * 100, head[:20], b""] * 50  # more than there may be connections
    slow = [server.connect(start) for start in starts]
    began = time.monotonic()
    assert server.ask(body=picture()).status == 200
    assert time.monotonic() - began < 1
    ends = []
    for connection in slow:
        try:
            ends.append(connection.recv(100)[:12])
        except ConnectionResetError:
            ends.append(b"dropped")
        connection.close()
    assert time.monotonic() - began < TIMEOUT + 3
    # Of those beyond the limit a client sees the end, or a reset if something of it was unread.
    assert set(ends) <= {b"HTTP/1.1 408", b"", b"dropped"}
    assert ends[-2] == b"HTTP/1.1 408"  # a header that began
    assert ends[-1] == b""  # as a browser opens connections in advance


def test_what_is_no_http_is_refused(server: Served) -> None:
    with server.connect(b"\x16\x03\x01 hello\r\n\r\n") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")


@pytest.mark.fault(110)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_within_two_seconds_while_requests_are_in_work(
    run: Path, number: int, code: int
) -> None:
    with serving(run.parents[1], run, "--rate", 1e5, "--quiet") as server:
        assert server.running.text() == f"http://127.0.0.1:{server.port}/\n"
        waiting = server.connect(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        )
        is_over = threading.Event()
        content = picture(3000, "JPEG")  # of which each takes a while

        def ask() -> None:
            while not is_over.is_set():
                try:
                    assert server.ask("/predict?map=true", content).status in (200, 503)
                except OSError:
                    return

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        began = time.monotonic()
        server.running.kill(number)
        assert server.running.end() == code
        assert time.monotonic() - began < 2
        is_over.set()
        for thread in threads:
            thread.join()
        waiting.close()
        assert server.running.text().splitlines()[1:] == ["Interrupted."]


def test_an_exported_file_on_an_open_host_with_a_low_rate(run: Path, cli: Call) -> None:
    file = run.parents[1] / "tiny.pt2"
    assert cli("export", run, "--format", "torch-export", "--out", file, "--quiet").code == 0
    options = "--checkpoint", file, "--host", "0.0.0.0", "--rate", 3, "--allow-host", "Box.example"
    with serving(run.parents[1], *options) as server:
        first, *rest = server.running.text().splitlines()
        assert "Warning: --host 0.0.0.0 lets other machines use this server" in "\n".join(
            [first, *rest]
        )
        assert server.ask("/healthz", Host="box.example:80").status == 200
        answer = server.ask("/predict?map=true", picture()).json
        assert answer["predictions"]
        assert answer["map"] is None
        assert answer["map_error"].startswith("An exported file has no activation map")
        assert answer["seen"].startswith("data:image/png;base64,")
        replies = [server.ask("/model") for _ in range(6)]
        assert {reply.status for reply in replies} == {200, 429}
        refused = replies[-1]
        assert refused.headers["retry-after"] == "1"
        assert refused.json["error"] == "More than 3 requests a second came from your address."
        assert server.ask("/healthz").status == 200


@pytest.mark.fault(105)
def test_a_port_in_use_is_one_line_with_port_and_option(run: Path, cli: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = cli("serve", run, "--port", port)
    assert answer.code == 2
    assert answer.err == (
        f"Error: --port {port}: the port is in use on 127.0.0.1. Give another one, or --port 0 for "
        "any that is free.\n"
    )
    answer = cli("serve", run, "--host", "192.0.2.1", "--port", 0)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Error: --host 192.0.2.1: not an address of this machine")


@pytest.mark.fault(109)
def test_a_run_without_a_checkpoint_is_refused(run: Path, cli: Call) -> None:
    empty = Path(shutil.copytree(run, "runs/empty"))
    shutil.rmtree(empty / "checkpoints")
    answer = cli("serve", "empty", "--port", 0)
    assert (answer.code, answer.out) == (4, "")
    assert "There is no checkpoint" in answer.err


def test_without_the_extra_it_is_named(cli: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    answer = cli("serve")
    assert answer.code == 2
    assert "The server needs uvicorn, which is not installed." in answer.err
    assert "pip install '.[serve]'" in answer.err
