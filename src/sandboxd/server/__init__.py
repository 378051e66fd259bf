"""Settings, wiring, routes: the only room that knows who is plugged in."""
