"""The node agent: runs the pods that are bound to its node, each in a sandbox, and reports their status.

It is a kubelet for sandboxes that somebody else implements (`serving.local.sandbox`) and images that somebody
else provides (`serving.local.images`). What to do next is decided by pure functions (`lifecycle`, `podstatus`,
`probes`, `envvars`, `command`, `resources`, `volumes`); the rest is a thin shell around them.

Invariants:

- A pod's record changes only by folding one event at a time (`state.fold`); actions follow from the record.
- Status is level-triggered: what is desired is compared with what the API server holds, and only a difference
  is written. An agent that restarts and finds everything as it should be writes nothing.
- A container never runs in a pod that the API server no longer has, beyond the time it takes to kill it.
- Nothing but the sandbox and the image stands between seeing a pod and starting it: no write, no event.
"""
