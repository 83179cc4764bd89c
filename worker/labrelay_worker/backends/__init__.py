"""Storage backends: where payloads and files can be put, looked at and read back."""
