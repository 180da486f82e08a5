"""Images: where they come from, how they are augmented, and how they reach the device."""

from cifar_cli.data.sources import Splits, choose_splits, load_dataset
from cifar_cli.data.types import Dataset, ImageSet, Progress

__all__ = ["Dataset", "ImageSet", "Progress", "Splits", "choose_splits", "load_dataset"]
