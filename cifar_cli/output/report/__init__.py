"""A report as one HTML file: `sentences` has what is said, the other files how it is drawn."""
