"""How close a reduced model stays to the dense one, image by image."""

from torch import Tensor
from torch.nn.functional import cosine_similarity

from tokenred.reduced.kept import KeptTokens


def feature_fidelity(found: KeptTokens, wanted: KeptTokens) -> dict[str, Tensor]:
    """Cosine similarities with the dense model's features, image by image.

    ``cls``: of the first prefix token; ``mean``: of the mean image token, each token counted as
    often as it stands for patches; ``patches``: the mean over the patches of the grid.
    """

    def mean(kept: KeptTokens) -> Tensor:
        share = kept.size / kept.size.sum(dim=1, keepdim=True)
        return (share[..., None].to(kept.tokens.dtype) * kept.tokens).sum(dim=1)

    both = {"mean": (mean(found), mean(wanted)), "patches": (found.unreduce(), wanted.unreduce())}
    if wanted.prefix.shape[1]:
        both = {"cls": (found.prefix[:, 0], wanted.prefix[:, 0])} | both
    close = {name: cosine_similarity(a.float(), b.float(), dim=-1) for name, (a, b) in both.items()}
    return close | {"patches": close["patches"].mean(dim=1)}


def map_fidelity(found: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Pearson's correlation of two maps, their mean absolute difference, and the intersection over
    union of the areas in which each exceeds its own mean; image by image."""
    a, b = found.flatten(1), wanted.flatten(1)
    error = (a - b).abs().mean(dim=1)
    a, b = (maps - maps.mean(dim=1, keepdim=True) for maps in (a, b))
    scale = a.square().sum(dim=1).sqrt() * b.square().sum(dim=1).sqrt()
    both, either = ((a > 0) & (b > 0)).sum(dim=1), ((a > 0) | (b > 0)).sum(dim=1)
    return {"correlation": (a * b).sum(dim=1) / scale, "error": error, "iou": both / either}
