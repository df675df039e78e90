"""Figures for papers, one a file; matplotlib and seaborn are imported when one is drawn."""
