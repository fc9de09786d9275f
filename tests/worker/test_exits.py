from worker.exits import PERMANENT, Exit


def test_codes_are_those_of_sysexits_and_two_of_them_are_for_ever():
    assert {code.name: code.value for code in Exit} == {
        "STOPPED": 0,
        "UNAVAILABLE": 69,
        "BUG": 70,
        "TEMPORARY": 75,
        "CREDENTIALS": 77,
        "CONFIGURATION": 78,
    }
    assert {77, 78} == PERMANENT
