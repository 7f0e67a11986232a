"""Consistency checks of a results folder."""
