import pytest


@pytest.fixture(params=["websockets", "picows"])
def engine(request):
    """Both must pass: what a wire does is not its engine's to decide."""
    return request.param
