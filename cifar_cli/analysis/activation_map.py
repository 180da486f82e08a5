"""Where in an image a network finds its class: Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_cli.analysis.trained import Exported, Trained
from cifar_cli.errors import ConfigError, check_extra
from cifar_cli.rng import kept_rng


def activation_maps(trained: Trained, images: Tensor, classes: Sequence[int]) -> Tensor:
    """How much each place of an image speaks for a class (Grad-CAM, Selvaraju et al. 2017).

    The maps are of the last layer whose output is more than one pixel, a few pixels wide, and are
    enlarged to the image.

    Args:
        trained: From a checkpoint; the gradients of an exported file cannot be computed.
        images: uint8 (N, S, S, 3), as training stores them.
        classes: N numbers of classes.

    Returns:
        float32 (N, S, S) on the CPU, in 0..1: 1 is the strongest place of each image. A map that
        is 0 everywhere has no place that speaks for the class.

    Raises:
        ConfigError: Captum is not installed, or the network has no gradients.
    """
    check_extra("report", ["captum"], "An activation map")
    from captum.attr import LayerGradCam

    network = trained.network
    if isinstance(trained, Exported):
        raise ConfigError(
            f"{trained.path} is an exported file, which has no activation maps.",
            "Use the checkpoint of the run.",
        )
    inputs = trained.normalise(images.to(trained.runtime.device)).requires_grad_()
    with kept_rng(), trained.runtime.autocast():
        layer = _last_spatial_layer(network, inputs[:1])
        target = torch.tensor(classes, device=inputs.device)
        coarse = LayerGradCam(network, layer).attribute(inputs, target, relu_attributions=True)
    maps = F.interpolate(
        coarse.detach().float(), images.shape[1:3], mode="bilinear", align_corners=False
    )[:, 0]
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return (maps / highest.clamp(min=torch.finfo(torch.float32).tiny)).cpu()


def _last_spatial_layer(network: nn.Module, inputs: Tensor) -> nn.Module:
    """The last layer of a forward pass whose output, (N, C, H, W), has more than one place."""
    found: list[nn.Module] = []

    def look(layer: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            found.append(layer)

    handles = [layer.register_forward_hook(look) for layer in network.modules()]
    try:
        with torch.no_grad():
            network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found[-1]
