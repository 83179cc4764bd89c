"""`labrelay doctor`: what is wrong with an installation, and the repair of each."""
