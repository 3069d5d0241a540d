"""The study: rows of an experiment by seeds, run as ordinary trainings, and their table."""
