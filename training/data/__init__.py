"""Synthetic scenes, takes rendered from them, and manifests of real takes."""
