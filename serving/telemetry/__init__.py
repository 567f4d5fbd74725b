"""Logs, metrics and traces of our own processes: set up once at the entry, used through the standard APIs."""
