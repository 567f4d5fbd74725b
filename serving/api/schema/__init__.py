"""What the kinds look like: one table per Go struct of Knative and Kubernetes, used three ways.

`decode` refuses wrong types with the words of Go's JSON decoder, `canonical` decides when two objects mean the
same (and what differs), `openapi` renders the structural schemas of the CRDs. One table for all three, so that
they cannot disagree. Tables hold every field that upstream's types know, also those that the CRDs prune, because
"must not set the field(s)" has to name them.
"""
