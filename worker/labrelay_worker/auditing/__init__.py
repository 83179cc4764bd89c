"""`labrelay check`: ask the destinations whether what was delivered is still there and equal."""
