"""What surrounds `fit`."""
