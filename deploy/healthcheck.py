"""Whether the service of this container reaches what it needs. Without the room's own modules, whose import would cost
more than the service itself does at rest."""

import http
import http.client
import sys

connection = http.client.HTTPConnection("127.0.0.1", 8888, timeout=4)
try:
    connection.request("GET", sys.argv[1] if len(sys.argv) > 1 else "/readyz")
    answer = connection.getresponse()
    print(answer.status, answer.read(1000).decode())
except OSError as error:
    sys.exit(f"{type(error).__name__}: {error}")
sys.exit(answer.status != http.HTTPStatus.OK)
