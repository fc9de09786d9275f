import pytest

from worker.template import fault_of, fields_of, fill


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


@pytest.mark.parametrize("field", ["${sq}", "${}", "${seq", "${SEQ}", "${seq }", "${seqs", "${é}"])
def test_what_begins_as_a_field_and_is_none_is_a_fault(field):
    fault = fault_of(f"${{seq}} {field}", ("seq", "uuid"))
    assert fault == f"holds {field}, which is no field; there are ${{seq}}, ${{uuid}}"


@pytest.mark.parametrize("text", ["", "$seq $$ $ {seq} }", "${seq}", "$${seq}${uuid}"])
def test_known_fields_and_other_dollars_are_none(text):
    assert fault_of(text, ("seq", "uuid")) == ""
