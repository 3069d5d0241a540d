"""Sources: a reader for each format of lists, and plug-in corpora. See sources.py."""
