"""Pretraining of the laptop scale's base model, and reinforcement with TRL's GRPOTrainer."""
