"""Live viewers: processes of their own that show what is delivered, and the way they are talked to."""
