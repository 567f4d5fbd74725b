"""Delta ADS and load reports for one Envoy: pure state (applier, snapshot, control) and a gRPC shell (server)."""
