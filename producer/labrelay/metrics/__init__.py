"""What labrelay measures: every family declared once, and the ledger read into samples."""
