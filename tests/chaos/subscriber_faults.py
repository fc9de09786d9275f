"""Subscribers that are too slow: a stranger who reads nothing, and the one who counts."""

import zmq

from chaos.kinds import fault
from worker.endpoints import data_endpoint


@fault("slow subscriber")
def stranger(scene, step):
    """Its queue at the worker fills; what it misses is nobody else's loss."""
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 1)
    socket.setsockopt(zmq.RCVBUF, 4096)
    socket.setsockopt(zmq.LINGER, 0)
    socket.subscribe(b"")
    socket.connect(data_endpoint(scene.fleet.runtime_dir, step.name))
    scene.later(step.between(4, 8), lambda: socket.close(0))


@fault("the counting subscriber stands")
def pause(scene, step):
    scene.witness.pause(step.between(0.5, 3))
