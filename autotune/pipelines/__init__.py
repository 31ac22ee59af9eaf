"""What is known of diffusers' pipelines: their families, and the units of their denoisers."""
