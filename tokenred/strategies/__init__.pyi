from tokenred.strategies.base import Embedding as Embedding
from tokenred.strategies.base import Fuser as Fuser
from tokenred.strategies.base import Router as Router
from tokenred.strategies.base import Scorer as Scorer
from tokenred.strategies.base import Selector as Selector
from tokenred.strategies.embeddings.multi_scale import MultiScale as MultiScale
from tokenred.strategies.embeddings.plain import Plain as Plain
from tokenred.strategies.fusers.fused_token import FusedToken as FusedToken
from tokenred.strategies.fusers.maximum import Maximum as Maximum
from tokenred.strategies.fusers.mean import Mean as Mean
from tokenred.strategies.fusers.merge import Merge as Merge
from tokenred.strategies.fusers.mlerp import MLERP as MLERP
from tokenred.strategies.fusers.patch_merger import PatchMerger as PatchMerger
from tokenred.strategies.fusers.propagate import Propagate as Propagate
from tokenred.strategies.fusers.prune import Prune as Prune
from tokenred.strategies.fusers.region_means import RegionMeans as RegionMeans
from tokenred.strategies.fusers.similar_mean import SimilarMean as SimilarMean
from tokenred.strategies.fusers.sinkhorn import Sinkhorn as Sinkhorn
from tokenred.strategies.fusers.token_slimming import TokenSlimming as TokenSlimming
from tokenred.strategies.routers.idle import Idle as Idle
from tokenred.strategies.routers.slow_fast import SlowFast as SlowFast
from tokenred.strategies.routers.take_all import TakeAll as TakeAll
from tokenred.strategies.schedule import Schedule as Schedule
from tokenred.strategies.schedules.budget import Budget as Budget
from tokenred.strategies.schedules.constant import Constant as Constant
from tokenred.strategies.schedules.grid_shrink import GridShrink as GridShrink
from tokenred.strategies.schedules.keep_count import KeepCount as KeepCount
from tokenred.strategies.schedules.keep_patches import KeepPatches as KeepPatches
from tokenred.strategies.schedules.keep_ratio import KeepRatio as KeepRatio
from tokenred.strategies.schedules.linear import Linear as Linear
from tokenred.strategies.schedules.per_layer import PerLayer as PerLayer
from tokenred.strategies.schedules.until_few import UntilFew as UntilFew
from tokenred.strategies.score_mods.frequency import Frequency as Frequency
from tokenred.strategies.score_mods.policy_mask import PolicyMask as PolicyMask
from tokenred.strategies.score_mods.top_keys import TopKeys as TopKeys
from tokenred.strategies.scorers.broad_attn import BroadAttn as BroadAttn
from tokenred.strategies.scorers.cls_attn import CLSAttn as CLSAttn
from tokenred.strategies.scorers.cos_sim import CosSim as CosSim
from tokenred.strategies.scorers.diag_attn import DiagAttn as DiagAttn
from tokenred.strategies.scorers.mixed_attn import MixedAttn as MixedAttn
from tokenred.strategies.scorers.random import Random as Random
from tokenred.strategies.selectors.density_peaks import DensityPeaks as DensityPeaks
from tokenred.strategies.selectors.grid_drop import GridDrop as GridDrop
from tokenred.strategies.selectors.importance_order import ImportanceOrder as ImportanceOrder
from tokenred.strategies.selectors.inverse_transform import InverseTransform as InverseTransform
from tokenred.strategies.selectors.matching.agglomerative import Agglomerative as Agglomerative
from tokenred.strategies.selectors.matching.batch_matching import BatchMatching as BatchMatching
from tokenred.strategies.selectors.matching.bipartite_matching import (
    BipartiteMatching as BipartiteMatching,
)
from tokenred.strategies.selectors.matching.energy_matching import EnergyMatching as EnergyMatching
from tokenred.strategies.selectors.matching.grid_matching import GridMatching as GridMatching
from tokenred.strategies.selectors.matching.local_global import LocalGlobal as LocalGlobal
from tokenred.strategies.selectors.matching.multi_criteria import MultiCriteria as MultiCriteria
from tokenred.strategies.selectors.matching.salience_matching import (
    SalienceMatching as SalienceMatching,
)
from tokenred.strategies.selectors.matching.threshold_matching import (
    ThresholdMatching as ThresholdMatching,
)
from tokenred.strategies.selectors.medoids import Medoids as Medoids
from tokenred.strategies.selectors.most_attended import MostAttended as MostAttended
from tokenred.strategies.selectors.partnered import Partnered as Partnered
from tokenred.strategies.selectors.predictor import Predictor as Predictor
from tokenred.strategies.selectors.slots import Slots as Slots
from tokenred.strategies.selectors.top_score import TopScore as TopScore
