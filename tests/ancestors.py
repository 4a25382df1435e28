"""Every public name of Python's asynchat, asyncore and socketserver: what dir() has of the modules themselves, of their
classes and of an instance of each. tests/ancestors.rs runs this as `python3 -W ignore`.

Standard output, one name a line: the module, a space, the name.
"""

import asynchat
import asyncore
import errno
import inspect
import os
import socket
import socketserver

ancestors = (asynchat, asyncore, socketserver)


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        handlers.append(self)


handlers = []
near, far = socket.socketpair()
reading, writing = os.pipe()
instances = [
    asynchat.async_chat(),
    asynchat.simple_producer(b""),
    asyncore.dispatcher_with_send(),
    asyncore.file_wrapper(reading),
    socketserver.TCPServer(("127.0.0.1", 0), Handler, bind_and_activate=False),
]
instances[-1].finish_request(near, ("", 0))
instances.extend(handlers)


def imported(module, name):
    value = getattr(module, name)
    return inspect.ismodule(value) or hasattr(errno, name) or getattr(value, "__module__", module.__name__) != module.__name__


def names(module):
    own = [name for name in dir(module) if not imported(module, name)]
    classes = [module.__dict__[name] for name in own if inspect.isclass(module.__dict__[name]) and not name.startswith("_")]
    of_classes = [name for one in classes for name in dir(one) if any(name in vars(base) for base in home(one))]
    of_instances = [name for one in instances if home(type(one))[0].__module__ == module.__name__ for name in vars(one)]
    return {name for name in own + of_classes + of_instances if not name.startswith("_")}


def home(one):
    """The classes that it is made of, as far as they are of one ancestor."""
    bases = [base for base in inspect.getmro(one) if base.__module__ in [module.__name__ for module in ancestors]]
    return [base for base in bases if base.__module__ == bases[0].__module__]


for module in ancestors:
    for name in sorted(names(module)):
        print(module.__name__, name)
