"""From "revision R needs n pods" to pods.

`plan` says which pods to create, drain, keep and delete; `template` writes a Pod; `placement` chooses where it
runs; `rate` says when it may be created. All are pure; `service` is the shell that holds the loop and the client.
The plan is level-triggered: it looks at the pods that exist, not at what it did before, so it may be made again
at any time, by any replica, after any crash.
"""
