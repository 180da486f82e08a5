"""Training augmentations in two forms: by Albumentations, and by one class per tensor transform."""
