"""What a track's channels are: measured, read and told. `model.conventions` asks."""
