"""`labrelay watch`: a folder that pipelines write records into, and from which sessions are submitted."""
