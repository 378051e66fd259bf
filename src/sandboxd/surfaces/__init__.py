"""Ways to ask, one package a wire."""
