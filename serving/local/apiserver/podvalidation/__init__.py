"""What kube-apiserver refuses in a Pod, or in the Pod of a template, with its field paths and words.

Pure functions from JSON to causes. The values have the types of the Pod's schema, and defaults are filled in; both
was seen to before. An ordinary Pod is judged in less than 100 µs, because every scale-up waits for it. Not judged:
Windows, resource claims, and volumes of other drivers than Kubernetes' own files.
"""
