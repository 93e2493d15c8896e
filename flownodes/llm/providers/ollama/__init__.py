"""Ollama: models on this machine, or on one of the network."""
