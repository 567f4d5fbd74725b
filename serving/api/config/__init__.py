"""Typed readings of the `config-*` ConfigMaps: keys, defaults, ranges and errors as upstream has them."""
