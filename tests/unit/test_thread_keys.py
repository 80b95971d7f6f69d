"""A thread's key and what it is made of."""

import pytest
from pydantic import TypeAdapter, ValidationError

from m3.errors import UnknownThread
from m3.events import ThreadId, ThreadKey
from m3.tenants import DEFAULT, Tenant, key_of, tenant_of, thread_id_of

thread_key: TypeAdapter[str] = TypeAdapter(ThreadKey)
tenant: TypeAdapter[str] = TypeAdapter(Tenant)


def test_a_key_is_the_id_with_its_tenant_before_it_and_the_default_tenants_the_id_alone() -> None:
    assert key_of("acme", "show") == "acme.show"
    assert key_of(DEFAULT, "show") == "show"


@pytest.mark.parametrize("of", [DEFAULT, "acme", "a", "0", "x" * 32])
@pytest.mark.parametrize("thread_id", ["show", "acme", DEFAULT, "a:b@c_d-e", "x" * 128])
def test_of_a_key_both_its_parts_are_known(of: str, thread_id: str) -> None:
    key = key_of(of, thread_id)
    assert thread_key.validate_python(key) == key
    assert (tenant_of(key), thread_id_of(key)) == (of, thread_id)


@pytest.mark.parametrize("of", [DEFAULT, "acme"])
def test_what_would_be_another_tenants_key_is_no_threads_id(of: str) -> None:
    with pytest.raises(UnknownThread):
        key_of(of, "acme.show")


def test_no_two_tenants_share_a_key_whatever_their_threads_are_called() -> None:
    names = ("acme", "a", "default", "show")
    keys = [key_of(of, thread_id) for of in (DEFAULT, "acme", "a") for thread_id in names]
    assert len(set(keys)) == len(keys)


def test_nobody_outside_can_name_another_tenants_thread() -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ThreadId).validate_python("acme.show")


@pytest.mark.parametrize("name", ["", "A", "-a", "a.b", "a_b", "a b", "a*", "#", "x" * 33, "é", "a\n"])
def test_a_tenant_may_not_be_called(name: str) -> None:
    with pytest.raises(ValidationError):
        tenant.validate_python(name)
    with pytest.raises(ValidationError):
        thread_key.validate_python(f"{name}.show")
