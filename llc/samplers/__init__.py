"""Samplers of the tethered, tempered posterior `p(w) ∝ exp(−nβ L_n(w) − (γ/2)‖w − w*‖²)`: one kernel a file."""
