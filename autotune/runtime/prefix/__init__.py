"""Pipeline calls that begin alike share what they have in common, bit for bit."""
