import pytest

from worker.template import fields_of, fill


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${a}${b}${a}", "1${a}1"),  # what a field holds is no template
        ("$a $$ $ {a} ${A} ${other} ${", "$a $$ $ {a} ${A} ${other} ${"),
        ("$${a}", "$1"),
        ("", ""),
    ],
)
def test_known_fields_are_filled_once_and_all_else_stays(text, filled):
    assert fill(text, {"a": "1", "b": "${a}"}) == filled


def test_the_fields_of_a_text_are_those_in_braces():
    assert fields_of("${topics} $topic ${seq} ${é}") == {"topics", "seq"}
