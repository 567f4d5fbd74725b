"""The small process tree that holds pods: spawner → one shim per pod → containers.

Runs as its own interpreter (`python -I -S`), imports only a handful of standard modules and never starts a thread:
a fork is then cheap, and what a pod costs beyond its application is one forked interpreter.

* `main`: the spawner. Forks one shim per request on its control socket; ends when the node agent does.
* `shim`: one per pod. Owns the pod's namespaces, is the parent of its containers, copies their logs, records
  their exits. Outlives the spawner and the node agent; a later agent connects to its socket.
* `container`: what a forked child does between fork and exec.

Nothing in here is imported by the node agent, except the wire format.
"""
