"""Studies: ablation grids, the store of their results, and the engines that run them."""
