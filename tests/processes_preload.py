"""What the server of `processes` does once, before it forks anything."""

import albumentations  # noqa: F401
import captum.attr  # noqa: F401
import drawn_once  # noqa: F401 - for its effect
import torch
import torch._dynamo

import cifar_cli.cli.app
import cifar_cli.output.console
import cifar_cli.serving.server
import cifar_cli.training.run  # noqa: F401
from cifar_cli.data.sources import shapes

torch.set_num_threads(1)  # threads would not survive a fork
shapes.load_shapes(size=32)
