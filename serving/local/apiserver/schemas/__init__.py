"""OpenAPI schemas of the built-in kinds: data of the public Kubernetes specification, and what is read from it."""
