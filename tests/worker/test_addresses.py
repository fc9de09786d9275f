import socket

from worker.addresses import Address, AddressOrder, interleaved

A, B, C = (Address(socket.AF_INET, (f"192.0.2.{number}", 443)) for number in (1, 2, 3))


def test_families_take_turns_each_in_its_order():
    v4 = [Address(socket.AF_INET, (f"192.0.2.{number}", 443)) for number in (1, 2, 3)]
    v6 = [Address(socket.AF_INET6, (f"2001:db8::{number}", 443, 0, 0)) for number in (1, 2)]
    assert interleaved([*v4, *v6]) == [v4[0], v6[0], v4[1], v6[1], v4[2]]
    assert interleaved([*v6, *v6, *v4[:1]]) == [v6[0], v4[0], v6[1]]


def test_addresses_that_were_never_tried_keep_the_order_of_the_resolver():
    assert AddressOrder().of([C, A, B]) == [C, A, B]


def test_what_was_tried_in_vain_goes_last_the_oldest_first():
    order = AddressOrder()
    order.tried(B)
    order.tried(A)
    assert order.of([A, B, C]) == [C, B, A]
    order.tried(B)
    assert order.of([A, B, C]) == [C, A, B]


def test_the_address_that_led_to_a_session_keeps_its_place_and_those_before_it_do_not():
    order = AddressOrder()
    order.tried(A)
    order.tried(B)
    order.succeeded()
    assert order.of([A, B, C]) == [B, C, A]
    AddressOrder().succeeded()  # a session that nobody dialled in this order


def test_an_address_that_the_resolver_gives_no_more_is_forgotten():
    order = AddressOrder()
    order.tried(A)
    order.of([B])
    assert order.of([A, B]) == [A, B]
