"""OpenAI's chat completions, responses and embeddings, and the many services that speak the same."""
