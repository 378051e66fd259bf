"""Our own wire, under `/api/v1`: what operators need, streamed where it is large or lasts."""
