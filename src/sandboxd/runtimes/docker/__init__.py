"""The runtime users call `docker`: a Docker Engine asked through its API."""
