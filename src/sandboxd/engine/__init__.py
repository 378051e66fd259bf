"""The life of sandboxes on one node."""
