"""Health checks: what is asked, how, and what this process says of itself."""
