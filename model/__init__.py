"""The alignment library: files and arrays in, an `Alignment` out. It knows no web and no training.

Shape letters, one legend for the whole project:
B batch, V viewpoints, R yaws, C ambisonic channels, N samples, T frames, F mel bands,
H W pixels (rows, columns), A azimuth bins, D embedding.
"""
