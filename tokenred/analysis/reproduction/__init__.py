"""The GTP paper's experiments: run again, and compared with the published results."""
