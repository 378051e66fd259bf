"""Ways to isolate, one package a runtime."""
