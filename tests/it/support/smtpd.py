"""A real SMTP server (aiosmtpd) for the tests: takes its orders as JSON, prints its port, and writes
each message it accepted as a line of JSON.

Addresses choose what happens to them: refused... is refused for good (but for the order "takes_all"), barred... as if the sender were, later... is put off as many
times as ordered, everything else is taken. The orders "helo", "mail", "rcpt" and "data" are replies
with which that command is refused; "auth" is the list of login mechanisms that are offered.
"""
import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

orders = json.loads(sys.argv[1])
put_off = {}


class Handler:
    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        if "helo" in orders:
            return [orders["helo"]]
        session.host_name = hostname
        if "auth" in orders:
            responses = [it for it in responses if not it.startswith("250-AUTH")]
            responses.insert(1, "250-AUTH " + orders["auth"])
        return responses

    async def handle_MAIL(self, server, session, envelope, address, options):
        if "mail" in orders:
            return orders["mail"]
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if "rcpt" in orders:
            return orders["rcpt"]
        if address.lower().startswith("refused") and not orders.get("takes_all"):
            return "550 5.1.1 nobody of that name here"
        if address.startswith("barred"):
            return "554 5.7.1 this recipient is not for you"
        if address.startswith("later"):
            put_off[address] = put_off.get(address, 0) + 1
            if put_off[address] <= orders.get("put_off", 1):
                return "451 4.7.1 greylisted, come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if "data" in orders:
            return orders["data"]
        mail = {
            "helo": session.host_name,
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "encrypted": session.ssl is not None or orders.get("wrapped", False),
            "user": session.auth_data.login.decode() if session.auth_data else None,
            "content": envelope.content.decode(),
        }
        with open(orders["file"], "a") as file:
            file.write(json.dumps(mail) + "\n")
        return "250 2.0.0 queued as 4711"


def authenticate(server, session, envelope, mechanism, data):
    right = (data.login, data.password) == (orders["user"].encode(), orders["password"].encode())
    return AuthResult(success=right, handled=False, auth_data=data)


async def main():
    context = None
    if "certificate" in orders:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(orders["certificate"], orders["key"])
    wrapped = orders.get("wrapped", False)
    settings = {"hostname": "localhost"}
    if context and not wrapped:
        settings.update(tls_context=context, require_starttls=True)
    if "user" in orders:
        settings.update(authenticator=authenticate, auth_required=True, auth_require_tls=context is not None and not wrapped)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(Handler(), **settings),
        "127.0.0.1",
        orders.get("port", 0),
        ssl=context if wrapped else None,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
