"""Who asks, and what they may do: authentication, RBAC, service accounts and their tokens.

Pure: `attributes` (what is asked), `rules` (one PolicyRule, and which rules cover others), `policy` (roles and
bindings, indexed by subject), `roles` (RBAC objects as values), `aggregation`, `escalation`, `pod_accounts`.
Shells: `users` (tokens of people, in a file), `tokens` (signed tokens of service accounts), `authentication`,
`authorizer` (the policy kept current from the storage), `gate` (both, for the HTTP server), `token_requests`,
`reviews`, `caretaker` (what every namespace has, and aggregated roles).

Invariants. Everything is refused that no binding allows; the only exception is the group `system:masters`. A
decision is made from published objects alone, so a binding counts as soon as its write was acknowledged.
"""
