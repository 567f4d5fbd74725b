"""The `nodeless` command: parses options, wires processes. No decision is taken here."""
