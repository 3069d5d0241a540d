"""Metrics from what a predict function gives; no model class is known here."""
