"""The model: typed Kubernetes and Knative objects, their names, keys, defaults, validation and conditions.

Pure: no clock, no environment, no I/O, no asyncio. Everything above imports from here; nothing here imports
from above.
"""
