"""The rotation between two ambisonic recordings, and what disturbs it. `model.reference` asks."""
