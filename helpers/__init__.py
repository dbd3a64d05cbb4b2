"""Dropout distillation: gates, predictors, losses, and Algorithms 1 and 2 of Rota Bulò et al. (ICML 2016)."""
