"""Faults of the network and of the exchange, as ``supervisor/exchange_faults.py`` does them."""

from chaos.kinds import Missed, fault

# Shortest and longest, in seconds. Heartbeats of the fleet give up within 2 s.
LASTING = {
    "half_open": (0.3, 4.0),
    "mute_data": (0.3, 2.0),
    "mute_pongs": (0.5, 4.0),
    "late_pongs": (0.5, 3.0),
    "fragments": (0.5, 2.0),
}
SHUT_S = (0.3, 2.0)


def lasting(kind):
    @fault(f"exchange {kind}")
    def begin(scene, step):
        seconds = step.between(*LASTING[kind])
        hit(scene.exchange.fault(kind, tag=step.name, seconds=seconds, delay=0.3))


def hit(answer):
    if not answer["sessions"]:
        raise Missed


for one in LASTING:
    lasting(one)


@fault("exchange reset", weight=3)
def reset(scene, step):
    hit(scene.exchange.fault("reset", tag=step.name))


@fault("exchange reset of everybody")
def reset_all(scene, step):
    hit(scene.exchange.fault("reset"))


@fault("exchange close")
def close(scene, step):
    hit(scene.exchange.fault("close", tag=step.name, code=1001 if step.strength < 0.5 else 1011))


@fault("exchange garbage")
def garbage(scene, step):
    hit(scene.exchange.fault("garbage", tag=step.name))


@fault("exchange oversize")
def oversize(scene, step):
    hit(scene.exchange.fault("oversize", tag=step.name, mib=2))


@fault("exchange reset, handshakes refused")
def refuse(scene, step):
    scene.exchange.fault("refuse", tag=step.name, seconds=step.between(*SHUT_S), status=503)
    hit(scene.exchange.fault("reset", tag=step.name))


@fault("exchange reset, handshakes unanswered")
def freeze(scene, step):
    scene.exchange.fault("freeze", tag=step.name, seconds=step.between(*SHUT_S))
    hit(scene.exchange.fault("reset", tag=step.name))


@fault("exchange stands")
def stands(scene, step):
    scene.stand(scene.exchange.process.pid, step.between(0.2, 2.5))
