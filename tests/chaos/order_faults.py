"""Orders of an operator in the midst of it all."""

from chaos.kinds import Missed, fault


@fault("order restart", weight=2)
def restart(scene, step):
    scene.order("restart", step.name)


@fault("order restart of several")
def restart_some(scene, step):
    scene.order("restart", *step.some)


@fault("order stop, start", weight=2)
def stop_and_start(scene, step):
    scene.order("stop", step.name)
    scene.later(step.between(0.05, 1.5), lambda: scene.order("start", step.name))


@fault("order kill", weight=2)
def kill(scene, step):
    scene.order("kill", step.name)


@fault("order rotate", weight=3)
def rotate(scene, step):
    scene.rotated.add(step.name)
    if scene.order("rotate", step.name).lines:
        raise Missed  # there is no session


@fault("order rotate of several, one killed")
def rotate_some(scene, step):
    scene.rotated |= set(step.some)
    scene.order("rotate", *step.some)
    scene.order("kill", step.some[0])


@fault("order shutdown --keep, new run")
def hand_over(scene, step):
    scene.order("shutdown", keep=True)
    scene.run_again()
