"""`cifar-resnet summary`."""

from __future__ import annotations

from typing import Annotated

import typer

from cifar_cli.cli import options


def summary(
    depth: Annotated[
        int, typer.Option(min=1, max=10, metavar="N", help="Number of nested levels to show.")
    ] = 3,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    recipe: options.Recipe = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    device: options.Device = None,
    seed: options.Seed = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show the network's layers: kernel, input, output, parameters and mult-adds.

    The number of classes is ten, or that of the folder given with --data.
    """
    settings, note = options.choose(locals())
    from cifar_cli.data.sources.load import count_classes
    from cifar_cli.models import build_model
    from cifar_cli.models.summary import summarise
    from cifar_cli.output.console import remarks, results, show
    from cifar_cli.output.documents import layer_document
    from cifar_cli.output.layer_table import layer_table, layer_totals

    size, classes = settings.data.image_size, count_classes(settings.data)
    model = build_model(settings.model, classes, size, eval_size=settings.eval_size)
    counted = summarise(model, size, depth)
    for text in [] if quiet else note:
        remarks().say(text)
    table = layer_table(counted, results().width)
    show(layer_document(counted), json, table, layer_totals(counted))
