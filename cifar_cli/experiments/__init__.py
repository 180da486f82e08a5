"""Many runs: recipes measured side by side."""
