"""How well the search searches: a table of evaluated policies, searches replayed on it, and what came of real ones."""
