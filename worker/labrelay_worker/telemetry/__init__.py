"""What a worker process tells of itself: counters, traces, the lines of its log. Put together for the Runtime."""
