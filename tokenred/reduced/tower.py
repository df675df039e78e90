"""A reduced vision tower of Hugging Face transformers, with that library's calling convention."""

from typing import Any, cast

from jaxtyping import Float
from torch import Tensor

from tokenred.backbones.hooks import has_hooks
from tokenred.backbones.huggingface import HuggingFaceViT
from tokenred.core.errors import BackboneError, InputError
from tokenred.reduced.model import ReducedViT


class ReducedTower(ReducedViT):
    """A `ReducedViT` that accepts the keywords of `transformers` and returns its output objects.

    Images alone, by position, give one tensor. With ``pixel_values`` or any other keyword, the
    model's own output object is returned, for the remaining tokens, so that the model works in a
    pipeline, a Trainer, and inside CLIP and LLaVA models.
    """

    def forward(
        self,
        images: Float[Tensor, "b ch H W"] | None = None,
        pixel_values: Float[Tensor, "b ch H W"] | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        interpolate_pos_encoding: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> Any:
        """One tensor for images by position, otherwise what the model itself returns.

        Hidden states are the tokens before the first block and after each, fewer and fewer.
        Attentions are refused, since there is no map over all tokens. Of other keywords, the loss
        receives ``num_items_in_batch``.

        Raises:
            InputError: for a keyword that is meaningless with fewer tokens, and for images that are
                missing or given twice.
            BackboneError: for keywords if the base itself has hooks.
        """
        asked = (pixel_values, labels, output_hidden_states, output_attentions, return_dict)
        called = any(value is not None for value in (*asked, interpolate_pos_encoding, *others))
        if images is not None and not called:
            return super().forward(images)
        batch = pixel_values if images is None else images
        if batch is None or (images is not None and pixel_values is not None):
            raise InputError(
                "expected one batch of images: reduced(images) or reduced(pixel_values=images), "
                f"got {'none' if batch is None else 'two'}."
            )
        if has_hooks(self.base):
            raise BackboneError(
                f"hooks on the {type(self.base).__name__} itself run only if images are passed by "
                "position. Register them on the reduced model, or on a module inside."
            )
        backbone, config = cast(HuggingFaceViT, self.backbone), cast(Any, self.base).config
        loss_options = self._read(config, output_attentions, others)
        wanted = output_hidden_states
        hidden = config.output_hidden_states if wanted is None else wanted
        if labels is not None:
            backbone.check_labels()
        batch = batch.to(next(self.base.parameters()).dtype)  # as theirs do
        backbone.check_images(batch, bool(interpolate_pos_encoding))
        layers = range(-1, len(backbone.blocks)) if hidden else range(0)
        origins = self._origins(layers, owners=False)
        state = self._run(batch, origins, checked=True)
        tokens = self._features(state)
        output = backbone.output(
            tokens,
            # Passed explicitly, since a compiler loses attributes of tensors.
            self.forward_head(tokens, pre_logits=True, weight=self._setup.weight(state)),
            hidden_states=tuple(origins.states[layer].x for layer in layers) if hidden else None,
            labels=labels,
            loss_options=loss_options,
        )
        as_object = config.return_dict if return_dict is None else return_dict
        return output if as_object else output.to_tuple()

    def _read(self, config: Any, attentions: bool | None, others: dict[str, Any]) -> dict[str, Any]:
        """The keywords for the loss; all others are refused."""
        if config.output_attentions if attentions is None else attentions:
            raise InputError(
                "a reduced model has no attention maps of all tokens to return. Leave out "
                "output_attentions; run_with_trace(images) records what happened to the tokens."
            )
        given = {name: value for name, value in others.items() if value is not None}
        if unknown := sorted(given.keys() - {"num_items_in_batch"}):
            raise InputError(
                f"{', '.join(unknown)}: not accepted by a reduced model. It takes pixel_values, "
                "labels, output_hidden_states, interpolate_pos_encoding and return_dict."
            )
        return given
