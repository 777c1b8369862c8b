"""Training objectives: embeddings or scores in, a loss and what to log out."""
