"""What one would write first: gevent's StreamServer, split lines, ujson. Usage: naive.py PORT"""

from __future__ import annotations

import sys

from gevent import monkey

monkey.patch_all()

import ujson  # noqa: E402
from gevent.server import StreamServer  # noqa: E402


def send_mail(args):
    return {"sent": 1, "contents": args["contents"]}


def echo(args):
    return args["text"]


def send_list(args):
    return {"sent": 1, "contents": args[2]}


def send_many(args):
    return {name: args[name] for name in ("mails", "options", "contents")}


FUNCTIONS = {
    "send_mail": send_mail,
    "echo": echo,
    "send_list": send_list,
    "send_letter": send_mail,
    "send_many": send_many,
}


def handle(socket, _address):
    rest = b""
    while data := socket.recv(65536):
        *lines, rest = (rest + data).split(b"\n")
        replies = []
        for line in lines:
            task = ujson.loads(line)
            result = FUNCTIONS[task["function"]](task["args"])
            replies.append(ujson.dumps(result).encode() + b"\n")
        if replies:
            socket.sendall(b"".join(replies))


StreamServer(("127.0.0.1", int(sys.argv[1])), handle, backlog=1024).serve_forever()
