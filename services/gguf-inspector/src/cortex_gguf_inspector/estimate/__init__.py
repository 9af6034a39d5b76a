"""How much memory a model takes on which device, and what fits. Pure, but for `sources` and `fit_params`."""
