"""What every other room builds on. Knows nothing of diffusion."""
