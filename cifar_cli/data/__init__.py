"""Images: where they come from, how they are augmented, and how they reach the device."""
