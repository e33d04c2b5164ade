"""How weights are updated from gradients: the registry of optimizers, the learning rate, and the ways of applying."""
