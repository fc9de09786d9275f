"""Reloads of a changed file: what is live, what costs a session, what costs a process."""

from chaos.kinds import fault


@fault("reload, other subscription", weight=2)
def subscription(scene, step):
    former = scene.settings[step.name]["topics"]
    scene.reload(step.name, topics=1 + (former + int(step.between(1, 4))) % 5)


@fault("reload, live key", weight=2)
def live(scene, step):
    scene.reload(step.name, stop_timeout=step.between(3, 6))


@fault("reload, new session")
def session(scene, step):
    scene.reload(step.name, interval=step.between(0.5, 0.9))


@fault("reload, new process")
def process(scene, step):
    scene.reload(step.name, sndhwm=int(step.between(150, 400)))


@fault("reload, journal of another size")
def journal(scene, step):
    former = scene.settings[step.name]["journal_mib"]
    scene.reload(step.name, journal_mib=4 if former == 3 else 3)
