"""IR to Envoy's configuration: one small file per kind of resource, each a pure function to protobuf messages."""
