"""Hugging Face: the inference router's chat, and vectors by feature extraction."""
