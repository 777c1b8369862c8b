"""Evaluations: `python -m training.evaluate yaw --manifest M.jsonl`."""
