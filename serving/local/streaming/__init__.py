"""Connections that stop being HTTP: how `kubectl exec`, `attach` and `port-forward` talk.

* `spdy_frames`: SPDY/3.1 framing, pure; `spdy`: streams over one connection.
* `hijack`: takes a connection over from the HTTP server.
* `pipe`: the two kinds of connection that carry SPDY: bare, and tunnelled through WebSocket messages.
* `channels`: the WebSocket protocols `v1` to `v5.channel.k8s.io`, one byte of channel number before each message.
* `session`: one interface for a remote command over either of them.
* `relay`: passes an upgraded connection on to another server as it is.
"""
