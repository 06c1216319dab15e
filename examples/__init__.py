"""Examples, as a package, so that a configuration can name their modules."""
