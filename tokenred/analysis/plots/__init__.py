"""Figures for papers, one per file; matplotlib and seaborn are imported on first use."""
