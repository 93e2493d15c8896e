"""Clients of models, for programs that call one without a workflow."""
