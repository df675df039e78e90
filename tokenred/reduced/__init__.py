"""What `wrap` returns: the model with fewer tokens, its plan, cost, block loop and trace."""
