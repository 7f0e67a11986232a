"""A results folder held against itself."""
