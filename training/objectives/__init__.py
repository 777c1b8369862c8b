"""What a network is trained to do, one objective a file.

An objective is a module: `objective(network, samples)` gives the loss to minimise and named figures
(accuracies, 0 to 1, unless their name says a unit). It may have parameters of its own, so network
and objective are wrapped together for several ranks (`pretext.Pretext`).
"""
