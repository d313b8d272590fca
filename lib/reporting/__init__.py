"""Figures, overlays and tables for the eye."""
