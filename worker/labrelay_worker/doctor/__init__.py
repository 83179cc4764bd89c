"""What `labrelay doctor` asks where a worker is installed."""

from labrelay.doctor.examining import Check
from labrelay_worker.doctor import destinations, flower, places, rights, timeouts

CHECKS = (
    Check("destinations", destinations.check),
    Check("places", places.check),
    Check("worker-rights", rights.check),
    Check("timeouts", timeouts.check),
    Check("flower", flower.check),
)
