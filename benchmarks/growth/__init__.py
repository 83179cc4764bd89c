"""How labrelay's costs grow with its ledger and its workers (`make bench-growth`)."""
