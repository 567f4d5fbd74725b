"""Who owns which field: the rules of server-side apply (structured merge), pure.

`types` says how a kind's fields merge, `fieldset` is the algebra of sets of fields, `compare` and `merging` walk
objects, `managers` reads and writes `metadata.managedFields`, `apply` puts them together.
"""
