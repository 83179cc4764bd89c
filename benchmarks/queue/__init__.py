"""labrelay beside other queues: the same contexts, Redis and receiver, round by round (`make bench`)."""
