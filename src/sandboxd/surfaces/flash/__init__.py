"""The flash-sandbox 0.1 REST wire."""
