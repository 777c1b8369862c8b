"""Networks: `torch.nn` modules and nothing else."""
