"""The Kubernetes API from our side: connection, client, informers, work queues, leases.

Raw JSON in, msgspec Structs out. Not a general client: only the verbs that nodeless uses.
"""
