"""Training, synthetic data and evaluation. It uses `model` and knows no web."""
