"""What a trained network knows: accuracy, confusion, and the images it gets wrong."""
