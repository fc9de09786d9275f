"""What may befall a worker's process, as hypothesis draws it."""

from hypothesis import strategies as st

from supervisor.restart_facts import (
    Down,
    Exited,
    Hung,
    KillWanted,
    MemoryHigh,
    Ready,
    RestartWanted,
    SpawnFailed,
    Stamped,
    StartWanted,
    StopWanted,
    Tick,
    Up,
)
from worker.spec import SECOND_NS

FACTS = st.one_of(
    st.sampled_from([StartWanted(), StopWanted(), RestartWanted(), KillWanted("SIGKILL")]),
    st.sampled_from([Stamped(), Ready(), Up(), Down(), Hung(6 * SECOND_NS), MemoryHigh(), Tick()]),
    st.builds(
        Exited,
        st.sampled_from([0, 1, 69, 70, 75, 77, 78]),
        st.none(),
        st.floats(0, 1, exclude_max=True),
    ),
    st.just(SpawnFailed("EAGAIN")),
)
