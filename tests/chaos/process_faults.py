"""Faults of processes: killed, stopped, all at once; the supervisor and the fork helper, too."""

import signal
import time

from chaos.kinds import Missed, fault

HANG_S = 8.0  # by now a hung worker was replaced; one that was not goes on


def worker_of(scene, name):
    pid = scene.fleet.pid(name)
    if not pid:
        raise Missed
    return pid


def slay(scene, name):
    if not scene.signal(worker_of(scene, name), signal.SIGKILL):
        raise Missed


@fault("worker SIGKILL", weight=8)
def kill_worker(scene, step):
    slay(scene, step.name)


@fault("several workers SIGKILL")
def kill_some(scene, step):
    pids = scene.fleet.pids_of_workers()
    hit = [scene.signal(pids[name], signal.SIGKILL) for name in step.some if pids[name]]
    if not any(hit):
        raise Missed


def stand(scene, name, seconds):
    pid = worker_of(scene, name)
    if not scene.signal(pid, signal.SIGSTOP):
        raise Missed
    scene.later(seconds, lambda: scene.signal(pid, signal.SIGCONT))


@fault("worker SIGSTOP, SIGCONT", weight=4)
def stop_worker(scene, step):
    stand(scene, step.name, step.between(0.1, 1.2))


@fault("worker SIGSTOP until hung", weight=2)
def hang_worker(scene, step):
    stand(scene, step.name, HANG_S)


@fault("supervisor SIGSTOP, SIGCONT")
def stop_supervisor(scene, step):
    scene.stand(scene.fleet.process.pid, step.between(0.2, 1.5))


@fault("fork helper SIGSTOP, SIGCONT")
def stop_helper(scene, step):
    helper = scene.helper()
    if not scene.signal(helper, signal.SIGSTOP):
        raise Missed
    try:
        scene.attempt(lambda: slay(scene, step.name))  # somebody has to be forked
        time.sleep(step.between(0.1, 0.6))
    finally:
        scene.signal(helper, signal.SIGCONT)


@fault("fork helper SIGKILL")
def kill_helper(scene, step):
    if not scene.signal(scene.helper(), signal.SIGKILL):
        raise Missed


@fault("supervisor SIGKILL, new run")
def kill_supervisor(scene, step):
    scene.slay_supervisor()
    if step.strength > 0.5:
        scene.attempt(lambda: slay(scene, step.name))  # nobody looks
    scene.run_again()


@fault("supervisor and fork helper SIGKILL, new run")
def kill_both(scene, step):
    helper = scene.helper()
    scene.slay_supervisor()
    scene.signal(helper, signal.SIGKILL)
    if step.strength > 0.5:
        scene.attempt(lambda: slay(scene, step.name))
    scene.run_again()
