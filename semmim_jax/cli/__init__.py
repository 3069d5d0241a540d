"""How commands read their flags, and the console command `semmim`."""
