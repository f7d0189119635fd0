"""An app of photos."""
