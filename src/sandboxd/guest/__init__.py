"""The host half of the agent protocol."""
