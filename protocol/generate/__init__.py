"""The generator of both sides' frame codecs from `frames.toml`."""
