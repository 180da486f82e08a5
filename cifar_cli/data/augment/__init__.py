"""Training augmentations in two forms."""
