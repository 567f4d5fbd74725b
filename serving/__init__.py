"""nodeless: a Knative-compatible, scale-to-zero HTTP serving layer for serverless pods."""
