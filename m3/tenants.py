"""Tenants: rooms within the room, that never meet.

A thread's key is what the whole room knows it by: in queues, in routing keys, in the table. It is the thread's id with
its tenant before it, ``acme.show``, and of the default tenant the id alone, ``show``. No thread id has a dot, so
nothing that anybody can call a thread reaches another tenant's; and a room with one tenant is as it was before there
were any.
"""

from typing import Annotated

from pydantic import Field

from m3.errors import UnknownThread

#: Whose threads have no tenant before their ids.
DEFAULT = "default"

TENANT_PATTERN = r"[a-z0-9][a-z0-9-]{0,31}"
Tenant = Annotated[str, Field(pattern=f"^{TENANT_PATTERN}$")]


def key_of(tenant: str, thread_id: str) -> str:
    """What the room knows the tenant's thread by. Raises UnknownThread for an id with a dot: no thread has one, and it
    would be another tenant's key."""
    if "." in thread_id:
        raise UnknownThread
    return thread_id if tenant == DEFAULT else f"{tenant}.{thread_id}"


def tenant_of(key: str) -> str:
    tenant, dot, _ = key.partition(".")
    return tenant if dot else DEFAULT


def thread_id_of(key: str) -> str:
    """What the tenant's own people and programs call the thread."""
    return key.rpartition(".")[2]
