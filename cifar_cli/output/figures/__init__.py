"""Figures in files: plain values in, PNG out. Drawn without a display, never shown."""
