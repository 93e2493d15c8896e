"""SQLite, by the standard library: dead letters."""
