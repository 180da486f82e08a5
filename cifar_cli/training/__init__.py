"""Training: the loop, its schedule and optimiser, checkpoints, and the LR range test."""
