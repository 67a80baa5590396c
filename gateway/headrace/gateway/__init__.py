"""An HTTP gateway over the queue: the Open Inference Protocol v2, in front of everything that workers serve.

`app` is an ASGI application; serve it with `headrace gateway` or any ASGI server, or mount it in an application of your
own, in whose lifespan `lifespan(app)` belongs then.
"""

from headrace.gateway.application import create_app, lifespan

__all__ = ["app", "create_app", "lifespan"]

#: Settings are read, and connections made, when it starts or with its first request.
app = create_app()
