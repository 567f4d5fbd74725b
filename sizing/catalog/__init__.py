"""Providers' lattices of shapes, prices, billing rules and exclusions: data in `data/*.yaml`, see `schema`."""
