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
    from tokenred.attention import AttentionStat as AttentionStat
    from tokenred.attention import AttentionStats as AttentionStats
    from tokenred.attention import ScoreMod as ScoreMod
    from tokenred.core import errors as errors
    from tokenred.core.part import Traits as Traits
    from tokenred.reduced.api import gmacs as gmacs
    from tokenred.reduced.features import FeatureMaps as FeatureMaps
    from tokenred.reduced.features import features as features
    from tokenred.reduced.kept import KeptTokens as KeptTokens
    from tokenred.reduced.model import ReducedViT as ReducedViT
    from tokenred.reduced.wrap import wrap as wrap
    from tokenred.strategies.strategy import Strategy as Strategy
    from tokenred.strategies.strategy import strategy as strategy

# Public name -> (module, attribute); an attribute of "" is the module itself.
_NAMES: dict[str, tuple[str, str]] = {
    "ScoreMod": ("attention", "ScoreMod"),
    "AttentionStats": ("attention", "AttentionStats"),
    "AttentionStat": ("attention", "AttentionStat"),
    "Backbone": ("backbones", "Backbone"),
    "register_backbone": ("backbones", "register_backbone"),
    "ReducedViT": ("reduced.model", "ReducedViT"),
    "wrap": ("reduced.wrap", "wrap"),
    "Selection": ("core.state", "Selection"),
    "TokenState": ("core.state", "TokenState"),
    "Trace": ("reduced.trace", "Trace"),
    "Transport": ("strategies.transport", "Transport"),
    "Traits": ("core.part", "Traits"),
    "Strategy": ("strategies.strategy", "Strategy"),
    "strategy": ("strategies.strategy", "strategy"),
    "gmacs": ("reduced.api", "gmacs"),
    "FeatureMaps": ("reduced.features", "FeatureMaps"),
    "features": ("reduced.features", "features"),
    "KeptTokens": ("reduced.kept", "KeptTokens"),
    "save": ("reduced.saving", "save"),
    "load": ("reduced.saving", "load"),
    "Graph": ("graphs", "Graph"),
    "GraphBuilder": ("graphs", "GraphBuilder"),
    "Embedding": ("strategies", "Embedding"),
    "Fuser": ("strategies", "Fuser"),
    "Router": ("strategies", "Router"),
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
    "list_score_mods": ("reduced.api", "list_score_mods"),
    "list_embeddings": ("reduced.api", "list_embeddings"),
    "list_fusers": ("reduced.api", "list_fusers"),
    "list_graphs": ("reduced.api", "list_graphs"),
    "list_routers": ("reduced.api", "list_routers"),
    "list_schedules": ("reduced.api", "list_schedules"),
    "list_scorers": ("reduced.api", "list_scorers"),
    "list_selectors": ("reduced.api", "list_selectors"),
    "list_strategies": ("reduced.api", "list_strategies"),
    "register_score_mod": ("reduced.api", "register_score_mod"),
    "register_embedding": ("reduced.api", "register_embedding"),
    "register_fuser": ("reduced.api", "register_fuser"),
    "register_graph": ("reduced.api", "register_graph"),
    "register_router": ("reduced.api", "register_router"),
    "register_schedule": ("reduced.api", "register_schedule"),
    "register_scorer": ("reduced.api", "register_scorer"),
    "register_selector": ("reduced.api", "register_selector"),
    "register_strategy": ("reduced.api", "register_strategy"),
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
    "score_mods": ("strategies.score_mods", ""),
    "embeddings": ("strategies.embeddings", ""),
    "fusers": ("strategies.fusers", ""),
    "recipes": ("strategies.recipes", ""),
    "routers": ("strategies.routers", ""),
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
