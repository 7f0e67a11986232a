"""Sampling responses from models for evaluation: one interface, several engines."""
