"""Middleware carried out: hooks around runs and node calls, in their order."""
