"""`cifar-resnet preview-augs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cifar_cli.cli import options
from cifar_cli.cli.result_files import replacement_note


def preview_augs(
    n: Annotated[
        int, typer.Option("--n", min=1, max=400, metavar="N", help="Number of sample images.")
    ] = 20,
    epoch: Annotated[
        int,
        typer.Option(min=1, max=100_000, metavar="E", help="Epoch whose random draws are shown."),
    ] = 1,
    index: Annotated[
        int,
        typer.Option(min=0, max=10**9, metavar="I", help="Index of the training image to augment."),
    ] = 0,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    skip_bad_images: options.SkipBadImages = False,
    recipe: options.Recipe = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    seed: options.Seed = None,
    out: options.Out = None,
    format_: options.Format = "png",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw sample images, and one image under each augmentation, as training sees it.

    The images have the size before train.resolutions changes it.

    Writes samples.png, samples_labelled.png, augmentations.png, and the augmented image at its
    original resolution. Default folder: preview/.
    """
    settings, note = options.choose(locals())
    folder = out or Path("preview")
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from cifar_cli.data.opening import open_images
    from cifar_cli.data.preview import preview
    from cifar_cli.output.console import show
    from cifar_cli.output.documents import file_document
    from cifar_cli.output.figures.images import augmentation_grid, sample_grid
    from cifar_cli.output.figures.style import about_line
    from cifar_cli.output.progress import Bars
    from cifar_cli.storage import atomic_file
    from cifar_cli.text import MAKER

    names = [f"{name}.{format_}" for name in ("samples", "samples_labelled", "augmentations")]
    files = [folder / name for name in (*names, f"image_{index}_epoch_{epoch}.png")]
    with Bars(quiet, note) as bars:
        bars.say(replacement_note(files, "preview-augs"))
        settings, dataset, _ = open_images(settings, bars.update)
        bars.say(dataset.notes)
    seen = preview(dataset, settings, n, epoch, index)
    samples = seen.samples.numpy()
    rows = [seen.original, *seen.alone.values(), seen.trained_on]
    shown = ["original", *seen.alone, f"as trained on,\nepochs {epoch} to {epoch + 7}"]
    footer = about_line("", dataset.name, "train", len(dataset.train))
    title = f"Training images of {dataset.name}"
    sample_grid(files[0], samples, title, footer=footer)
    sample_grid(files[1], samples, f"{title} with their classes", seen.sample_labels, footer)
    title = f"Augmentations of training image {index} ({seen.label})"
    augmentation_grid(files[2], [row.numpy() for row in rows], shown, title, footer)
    about = PngInfo()
    about.add_text("Software", MAKER)
    with atomic_file(files[3]) as file:
        image = Image.fromarray(seen.trained_on[0].numpy())
        image.save(file, format="png", pnginfo=about)
    show(file_document(files), json)
