"""Images of one machine: found by any reference, verified, converted once into a read-only root filesystem.

`store.LocalImageStore` is the way in (`protocol.ImageStore` is what others need of it); `reference` is the parser
that validation shares; `examples` builds the hello images. Everything that a registry, an archive or a layer says
is input from a stranger: sizes are bounded (`limits`), digests are verified before anything is read, and unpacking
never leaves its directory (`tree`).
"""
