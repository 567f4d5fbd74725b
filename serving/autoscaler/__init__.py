"""How many pods a revision needs: the Knative Pod Autoscaler (KPA) as pure functions of (state, observation, now).

`parameters` reads annotations and `config-autoscaler`; `metrics` turns gateways' reports into averages over
`window`s; `kpa` decides from averages; `policies` bounds the decision; `scaling` is the scale-to-zero state
machine; `revision` puts them together for the shell in `service`. Nothing here but the shell knows a clock, and
nothing here is stored: after a restart the state refills from the next reports.
"""
