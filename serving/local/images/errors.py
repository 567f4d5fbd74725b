"""How images fail: every error is an `ImageError` with Kubernetes' waiting reason.

- `InvalidImageName`: the reference is no reference. Permanent.
- `ErrImagePull`: the image cannot be had: unknown, refused, broken, hostile, unreachable.
- `ErrImageNeverPull`: absent, and the pull policy is Never. Permanent.
- `ImageInspectError`: it is here but its configuration makes no sense. Permanent.
"""

from __future__ import annotations

from serving.local.images.protocol import ImageError


def invalid_name(text: str, why: str) -> ImageError:
    return ImageError("InvalidImageName", f'couldn\'t parse image name "{text}": {why}', permanent=True)


def pull_failed(message: str, *, permanent: bool = False) -> ImageError:
    return ImageError("ErrImagePull", message, permanent=permanent)


def refused(message: str) -> ImageError:
    """The image's content is wrong or hostile: fetching it again gives the same."""
    return ImageError("ErrImagePull", message, permanent=True)


def never_pull(text: str) -> ImageError:
    message = f'Container image "{text}" is not present with pull policy of Never'
    return ImageError("ErrImageNeverPull", message, permanent=True)


def inspect_failed(message: str) -> ImageError:
    return ImageError("ImageInspectError", message, permanent=True)
