"""`cifar-resnet serve`."""

from __future__ import annotations

import sys
from typing import Annotated

from cifar_cli.cli import options
from cifar_cli.cli.evaluate import Checkpoint

PACKAGES = "fastapi", "uvicorn", "python_multipart", "captum"
SERVER = "Server"
of_server = options.option_maker(SERVER)


def serve(
    run: options.Run = None,
    host: Annotated[
        str,
        of_server("--host ADDRESS", "Address to listen on. 127.0.0.1: only this machine."),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        of_server("--port N", "Port to listen on; 0: any that is free.", min=0, max=65_535),
    ] = 8000,
    checkpoint: Checkpoint = "last",
    data_dir: options.DataDir = None,
    device: options.Device = None,
    allow_host: Annotated[
        list[str] | None,
        of_server(
            "--allow-host NAME",
            "Another name by which browsers reach the server, such as that of a proxy. Repeatable.",
        ),
    ] = None,
    max_bytes: Annotated[
        int,
        of_server("--max-bytes N", "Largest file to accept, in bytes.", min=1, max=256 * 2**20),
    ] = 20_000_000,
    max_pixels: Annotated[
        int,
        of_server("--max-pixels N", "Largest picture to decode, in pixels.", min=1, max=64_000_000),
    ] = 64_000_000,
    rate: Annotated[
        float,
        of_server("--rate N", "Requests per second to answer, for each address.", min=0.1, max=1e6),
    ] = 50.0,
    timeout: Annotated[
        float,
        of_server("--timeout SECONDS", "Time for a client to send its file.", min=0.1, max=3600),
    ] = 20.0,
    quiet: options.Quiet = False,
) -> None:
    """Serve a page that classifies pictures, and a JSON endpoint.

    The page takes pictures that are dropped, chosen, pasted or photographed, and shows the classes
    and where in the picture the network finds them. POST /predict takes an image file and answers
    in JSON; /openapi.json describes it. Only this machine can reach the server, unless --host
    names another address. Ctrl-C ends it.
    """
    from cifar_cli.errors import check_extra

    check_extra("serve", PACKAGES, "The server")
    from cifar_cli.cli.stopping import leave_on_signals
    from cifar_cli.output.console import print_line
    from cifar_cli.output.progress import Bars
    from cifar_cli.serving.limits import Limits
    from cifar_cli.serving.model import load_served
    from cifar_cli.serving.server import address_of, bind, is_open, names_of
    from cifar_cli.serving.server import serve as serve_until_stopped

    with bind(host, port) as listener:
        with Bars(quiet) as bars:
            folder = str(data_dir) if data_dir else None
            model = load_served(run, checkpoint, device or "auto", bars.update, folder)
        notes = [*model.notes, f"Serving {model.trained.path}. Press Ctrl-C to stop."]
        if is_open(listener):
            notes.insert(
                0,
                f"Warning: --host {host} lets other machines use this server, without a password.",
            )

        def ready() -> None:
            bars.say(notes)
            print_line(address_of(listener))
            sys.stdout.flush()

        # uvicorn hands on a signal once it has stopped. Then there is nothing to clean up, which
        # takes Python a second or more.
        leave_on_signals()
        serve_until_stopped(
            model,
            Limits(max_bytes, max_pixels, rate, timeout),
            listener,
            names_of(listener, [host, *(allow_host or [])]),
            ready=ready,
            report=lambda text: bars.say([text]),
        )
