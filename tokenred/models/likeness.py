"""What a file says of the model it was made from, so that no other takes its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tokenred.core.errors import CheckpointError
from tokenred.models.attributes import attributes_of, differences, packages_of
from tokenred.models.metadata import cut, read_entry
from tokenred.models.probe import Answer, agree, probed

__all__ = ["check_answers", "check_attributes", "told_likeness"]

_NAMED = 4


def told_likeness(base: nn.Module, whole: nn.Module, image: Tensor) -> dict[str, str]:
    """Entries for a file's metadata.

    Args:
        base: whose attributes are told, and what it says to an image.
        whole: what it is part of; said to the same image.
        image: see `tokenred.models.probe.probe_image`.

    Raises:
        CheckpointError: for a model that does not run.
    """
    alike: dict[str, list[str]] = {}
    for name, attributes in attributes_of(base).items():
        alike.setdefault(json.dumps(attributes), []).append(name)
    answers = {"base": probed(base, image), "whole": probed(whole, image)}
    return {
        "attributes": json.dumps([[json.loads(text), names] for text, names in alike.items()]),
        "packages": json.dumps(packages_of(base)),
        "probe": json.dumps({k: [value.hex() for value in v] for k, v in answers.items()}),
    }


def check_attributes(metadata: Mapping[str, str], base: nn.Module, origin: str) -> None:
    """Refuse a model of other settings than the one that a file was made from.

    Only where the packages are of the same versions: others may have other attributes.

    Args:
        metadata: of the file.
        base: as for `told_likeness`.
        origin: the file, for messages.

    Raises:
        CheckpointError: says what differs.
    """
    saved = _read_attributes(metadata, origin)
    if read_entry(metadata, "packages", dict, origin) != packages_of(base):
        return
    found = list(differences(saved, attributes_of(base)))
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise CheckpointError(
            f"the model is not the one that was saved in {origin}: "
            f"{'; '.join(found[:_NAMED])}{more}. Build it as you did then."
        )


def check_answers(
    metadata: Mapping[str, str], base: nn.Module, whole: nn.Module, image: Tensor, origin: str
) -> None:
    """Refuse a model that has a file's weights and gives other logits, but for rounding.

    What chooses tokens may choose others after another rounding. So the whole is only compared
    where the base's logits are the same to the last bit.

    Args:
        metadata: of the file.
        base, whole, image: as for `told_likeness`.
        origin: the file, for messages.

    Raises:
        CheckpointError: says whether it is the base or what was done to it.
    """
    answers = _read_answers(metadata, origin)
    answer = probed(base, image)
    if not agree(answers["base"], answer, image.dtype):
        raise _other_logits("the base model", origin)
    same = torch.tensor(answer).equal(torch.tensor(answers["base"]))
    if same and not agree(answers["whole"], probed(whole, image), image.dtype):
        raise _other_logits("the strategy", origin)


def _other_logits(what: str, origin: str) -> CheckpointError:
    return CheckpointError(
        f"{what} is not the one that was saved in {origin}: with the same weights it gives other "
        "logits. Build it as you did then, and import the parts that you used."
    )


def _read_attributes(metadata: Mapping[str, str], origin: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for entry in read_entry(metadata, "attributes", list, origin):
        match entry:
            case [dict(attributes), list(names)] if all(isinstance(n, str) for n in names):
                found |= {name: {k: str(v) for k, v in attributes.items()} for name in names}
            case _:
                raise CheckpointError(
                    f"expected attributes and modules in the entry 'attributes' of {origin}, got "
                    f"{cut(entry)}."
                )
    return found


def _read_answers(metadata: Mapping[str, str], origin: str) -> dict[str, Answer]:
    told: dict[str, Any] = read_entry(metadata, "probe", dict, origin)
    try:
        return {
            name: tuple(float.fromhex(digits) for digits in told[name])
            for name in ("base", "whole")
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"expected logits of 'base' and 'whole' in the entry 'probe' of {origin}, got "
            f"{cut(told)}."
        ) from error
