"""A mail server that keeps what it is given as files: one JSON object each, `from`, `to`, `raw`, `tls`, `user`.

Recipients that begin with `nobody` are refused for good, those with `later` for now.
"""

import argparse
import asyncio
import itertools
import json
import os
import ssl

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

LOGIN = LoginPassword(b"watchpost", b"s3cret-of-mail")


class Keeper:
    def __init__(self, folder):
        self.folder = folder
        self.numbers = itertools.count(1)

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody"):
            return "550 5.1.1 no such mailbox"
        if address.startswith("later"):
            return "451 4.7.1 greylisted, come back"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "raw": envelope.content.decode(),
            "tls": server.transport.get_extra_info("sslcontext") is not None,
            "user": session.auth_data.decode() if session.auth_data else None,
        }
        path = os.path.join(self.folder, f"{next(self.numbers):04}.json")
        with open(path + ".part", "w", encoding="utf-8") as file:
            json.dump(mail, file)
        os.rename(path + ".part", path)
        return "250 2.0.0 kept"


def authenticate(server, session, envelope, mechanism, data):
    # Without `handled=False` a wrong password gets no answer at all, and the client waits for ever.
    return AuthResult(success=data == LOGIN, handled=False, auth_data=data.login)


async def main():
    arguments = argparse.ArgumentParser()
    for name in ("--dir", "--tls"):
        arguments.add_argument(name, required=True)
    for name in ("--starttls", "--smtps", "--plain"):
        arguments.add_argument(name, type=int, required=True)
    given = arguments.parse_args()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(given.tls + ".pem", given.tls + ".key")
    keeper = Keeper(given.dir)
    login = {"authenticator": authenticate, "auth_required": True}

    def starttls():
        return SMTP(keeper, hostname="mail.example", tls_context=tls, require_starttls=True, **login)

    def smtps():
        return SMTP(keeper, hostname="mail.example", auth_require_tls=False, **login)

    def plain():
        return SMTP(keeper, hostname="mail.example")

    loop = asyncio.get_running_loop()
    await loop.create_server(starttls, "127.0.0.1", given.starttls)
    await loop.create_server(smtps, "127.0.0.1", given.smtps, ssl=tls)
    await loop.create_server(plain, "127.0.0.1", given.plain)
    await asyncio.Event().wait()


asyncio.run(main())
