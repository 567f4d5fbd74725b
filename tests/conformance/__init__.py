"""Upstream's conformance suite, run against nodeless. `python -m tests.conformance --help`."""
