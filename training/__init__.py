"""Training, synthetic data and evaluation. It uses `model` and knows no web."""

import model  # noqa: F401  -- as soon as a command starts: it can be stopped while it imports
