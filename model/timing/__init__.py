"""When a sound occurs in another: delays, and the line they lie on. `model.sync` asks."""
