"""The embedded API server: the part of the Kubernetes API that kubectl, kn and client libraries need, on SQLite.

Layers, each importing only those above it:

- pure rules: `errors`, `kinds`, `builtin`, `registry`, `paths`, `selectors`, `state` (objects by revision),
  `meta`, `patch`, `strategic`, `schema`, `fieldvalidation`, `deletion`, `table`, `discovery`, `openapi`,
  `protobuf`;
- storage: `journal` (one SQLite writer thread), `storage` (state + journal);
- shells: `resources` (verbs on objects), `admission`, `collector` (garbage collection), `watch`, `streams`,
  `server` (HTTP), `service` (the process).

Invariants. Readers and watchers see only what is durable, in one global order of resource versions. A stored
object is never mutated: a new version is a new value. Objects change only through `storage.Storage.write`.
"""
