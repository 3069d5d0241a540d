"""A trained run that predicts: its model, its inputs, and outputs as texts and labels."""
