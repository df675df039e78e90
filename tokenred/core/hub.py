"""Published weights: whether they can be fetched, known without timm and PyTorch."""

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

from tokenred.core.errors import CheckpointError

HUB = ("hf-hub:", "hf_hub:", "local-dir:")
"""How names of models begin that timm looks up elsewhere."""

_PATIENCE = 5.0  # seconds for a host to answer


def unreachable(url: str) -> str:
    """The host of a URL if it cannot be reached; empty if it can, or a proxy may reach it."""
    if getproxies():
        return ""
    place = urlsplit(url)
    try:
        port = place.port or (80 if place.scheme == "http" else 443)
        socket.create_connection((str(place.hostname), port), timeout=_PATIENCE).close()
    except OSError:
        return str(place.hostname)
    return ""


def no_weights(name: str, why: str) -> CheckpointError:
    """The error for a model whose published weights cannot be fetched."""
    return CheckpointError(
        f"expected the published weights of {name!r}, got none: {why.rstrip('.')}. Without a "
        "network, pass checkpoint=FILE with a downloaded file, or pretrained=False for random "
        "weights; 'digits' needs no download."
    )
