"""Figures: masks, patterns, predictions and curves."""
