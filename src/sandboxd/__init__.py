"""sandboxd: one server that gives untrusted code a place to run."""
