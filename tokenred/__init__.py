"""tokenred: token-reduction strategies for vision transformers, composed of parts, and fast.

Three lines make a timm model faster::

    import timm, tokenred as tr
    vit = timm.create_model("deit_small_patch16_224", pretrained=True).eval()
    fast = tr.wrap(vit, tr.strategy("gtp", P=8))

Everything here is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tokenred._timm_models import register_with_timm
from tokenred._version import __version__

if TYPE_CHECKING:
    from tokenred import analysis as analysis
    from tokenred import attention as attention
    from tokenred import backbones as backbones
    from tokenred import data as data
    from tokenred import export as export
    from tokenred import graphs as graphs
    from tokenred import models as models
    from tokenred import testing as testing
    from tokenred import training as training
    from tokenred.attention import AttentionEdit as AttentionEdit
    from tokenred.attention import AttentionStats as AttentionStats
    from tokenred.attention import Need as Need
    from tokenred.core import errors as errors
    from tokenred.core.api import gmacs as gmacs
    from tokenred.core.features import FeatureMaps as FeatureMaps
    from tokenred.core.features import features as features
    from tokenred.core.kept import KeptTokens as KeptTokens
    from tokenred.core.model import ReducedViT as ReducedViT
    from tokenred.core.part import Traits as Traits
    from tokenred.core.plan import Strategy as Strategy
    from tokenred.core.plan import strategy as strategy
    from tokenred.core.wrap import wrap as wrap

# Public name -> (module, attribute); an attribute of "" is the module itself.
_NAMES: dict[str, tuple[str, str]] = {
    "AttentionEdit": ("attention", "AttentionEdit"),
    "AttentionStats": ("attention", "AttentionStats"),
    "Need": ("attention", "Need"),
    "Backbone": ("backbones", "Backbone"),
    "register_backbone": ("backbones", "register_backbone"),
    "ReducedViT": ("core.model", "ReducedViT"),
    "wrap": ("core.wrap", "wrap"),
    "Selection": ("core.state", "Selection"),
    "TokenState": ("core.state", "TokenState"),
    "Trace": ("core.trace", "Trace"),
    "Transport": ("core.transport", "Transport"),
    "Traits": ("core.part", "Traits"),
    "Strategy": ("core.plan", "Strategy"),
    "strategy": ("core.plan", "strategy"),
    "gmacs": ("core.api", "gmacs"),
    "FeatureMaps": ("core.features", "FeatureMaps"),
    "features": ("core.features", "features"),
    "KeptTokens": ("core.kept", "KeptTokens"),
    "save": ("core.saving", "save"),
    "load": ("core.saving", "load"),
    "Graph": ("graphs", "Graph"),
    "GraphBuilder": ("graphs", "GraphBuilder"),
    "Embedding": ("strategies", "Embedding"),
    "Fuser": ("strategies", "Fuser"),
    "Route": ("strategies", "Route"),
    "Schedule": ("strategies", "Schedule"),
    "Scorer": ("strategies", "Scorer"),
    "Selector": ("strategies", "Selector"),
    "Budget": ("strategies", "Budget"),
    "Constant": ("strategies", "Constant"),
    "KeepRatio": ("strategies", "KeepRatio"),
    "Linear": ("strategies", "Linear"),
    "PerLayer": ("strategies", "PerLayer"),
    "TopScore": ("strategies", "TopScore"),
    "benchmark": ("analysis", "benchmark"),
    "evaluate": ("analysis", "evaluate"),
    "list_attention_edits": ("core.api", "list_attention_edits"),
    "list_embeddings": ("core.api", "list_embeddings"),
    "list_fusers": ("core.api", "list_fusers"),
    "list_graphs": ("core.api", "list_graphs"),
    "list_routes": ("core.api", "list_routes"),
    "list_schedules": ("core.api", "list_schedules"),
    "list_scorers": ("core.api", "list_scorers"),
    "list_selectors": ("core.api", "list_selectors"),
    "list_strategies": ("core.api", "list_strategies"),
    "register_attention_edit": ("core.api", "register_attention_edit"),
    "register_embedding": ("core.api", "register_embedding"),
    "register_fuser": ("core.api", "register_fuser"),
    "register_graph": ("core.api", "register_graph"),
    "register_route": ("core.api", "register_route"),
    "register_schedule": ("core.api", "register_schedule"),
    "register_scorer": ("core.api", "register_scorer"),
    "register_selector": ("core.api", "register_selector"),
    "register_strategy": ("core.api", "register_strategy"),
    "analysis": ("analysis", ""),
    "attention": ("attention", ""),
    "backbones": ("backbones", ""),
    "data": ("data", ""),
    "errors": ("core.errors", ""),
    "export": ("export", ""),
    "graphs": ("graphs", ""),
    "models": ("models", ""),
    "testing": ("testing", ""),
    "training": ("training", ""),
    "edits": ("strategies.edits", ""),
    "embeddings": ("strategies.embeddings", ""),
    "fusers": ("strategies.fusers", ""),
    "recipes": ("strategies.recipes", ""),
    "routes": ("strategies.routes", ""),
    "schedules": ("strategies.schedules", ""),
    "scorers": ("strategies.scorers", ""),
    "selectors": ("strategies.selectors", ""),
}

__all__ = ["__version__", *_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'tokenred' has no attribute {name!r}")
    module, attribute = _NAMES[name]
    found = importlib.import_module(f"tokenred.{module}")
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


register_with_timm()
