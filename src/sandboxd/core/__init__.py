"""Values and rules: imports nothing of ours and does no I/O."""
