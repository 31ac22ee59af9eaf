"""A search as Optuna keeps it, for any number of workers."""
