"""What of a client's address counts as one client."""

import pytest

from m3.addresses import UNKNOWN, counted_as


def test_an_ipv4_address_counts_alone() -> None:
    assert counted_as("203.0.113.7") == "203.0.113.7"
    assert counted_as("203.0.113.8") != counted_as("203.0.113.7")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("2001:DB8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::7", "2001:db8:0:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_ipv6_address_counts_as_the_network_that_its_client_has(address: str, network: str) -> None:
    assert counted_as(address) == network


def test_an_ipv4_address_written_as_ipv6_counts_as_the_ipv4_address() -> None:
    assert counted_as("::ffff:203.0.113.7") == counted_as("::FFFF:cb00:7107") == "203.0.113.7"


@pytest.mark.parametrize(
    "text", ["", "fresh-1", "fresh-2", "203.0.113.7:1234", "203.0.113", "[::1]", "1" * 65_536, "٣.1.1.1"]
)
def test_all_that_is_no_address_counts_together(text: str) -> None:
    assert counted_as(text) == UNKNOWN
