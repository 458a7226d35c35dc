"""The mathematics of lambdahat: local learning coefficients, curvature and stages. Imports nothing of the service.

`llc.settings`, `llc.models`, `llc.layout`, `llc.checkpoints`, `llc.confined` and `llc.data` import no torch, so that a
server can validate what it is given without loading it.
"""
