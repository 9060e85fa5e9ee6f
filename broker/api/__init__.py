"""A router a noun, each with its request and response models."""
