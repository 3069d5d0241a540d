"""From any source to shards: what is planned, checked, written and verified."""
