"""Moto as an HTTP server on loopback, at the port given, served by ONE thread.

Its own server answers in several threads over tables without locks and loses updates under races.
"""

import sys

from moto.server import DomainDispatcherApplication, create_backend_app
from waitress import serve

serve(
    DomainDispatcherApplication(create_backend_app),
    host="127.0.0.1",
    port=int(sys.argv[1]),
    threads=1,
    connection_limit=1000,
    ident=None,
)
