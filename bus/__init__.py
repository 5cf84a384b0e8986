"""How it travels: the only package that knows NATS, JetStream, FastStream, Redis, OpenTelemetry and processes."""

from bus.actor import Actor as Actor
from bus.call import Call as Call
from bus.client import Bus as Bus
from bus.settings import Settings as Settings
from bus.stage import stage as stage
