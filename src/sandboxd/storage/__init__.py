"""What is kept: the state file and the object store."""
